//! The arguments that commands which start a VM from an image have in common.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use chv_sandbox::guest::protocol::DEFAULT_PORT;
use chv_sandbox::image::Image;
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::machine::{Disk, DiskFormat, DiskRole, VmShape};
use chv_sandbox::vmm::{Confinement, Layer, VmmConfig};

/// The VMM that a command starts.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct VmmBinary {
    /// The Cloud Hypervisor executable; a name without a slash is looked up in PATH
    #[arg(
        long = "vmm",
        value_name = "BIN",
        env = "CLOUD_HYPERVISOR",
        default_value = "cloud-hypervisor"
    )]
    pub(crate) path: PathBuf,
}

/// The settings of the VM. Each requires the argument `image` of its command, because no VM is created without an
/// image.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct VmArgs {
    /// Memory, in MiB
    #[arg(long, requires = "image", value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(16..=1 << 24))]
    pub(crate) memory: u64,
    /// vCPUs
    #[arg(long, requires = "image", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=254))]
    pub(crate) vcpus: u32,
    /// The guest's vsock CID
    #[arg(long, requires = "image", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..u32::MAX as i64))]
    pub(crate) cid: u32,
    /// The vsock port of the guest's dispatcher
    #[arg(long, requires = "image", default_value_t = DEFAULT_PORT)]
    pub(crate) port: u32,
    /// Set a variable in the environment of the VMM's process; may be repeated
    #[arg(long, requires = "image", value_name = "NAME=VALUE", value_parser = environment)]
    pub(crate) vmm_env: Vec<(OsString, OsString)>,
    /// Refuse to run unless these confinement layers are in force, for example landlock,namespaces
    ///
    /// Every layer that this host supports is used in any case.
    #[arg(long, requires = "image", value_name = "LAYERS", value_delimiter = ',', value_parser = layer)]
    pub(crate) require: Vec<Layer>,
    /// Start the VMM without confinement
    #[arg(long, requires = "image", conflicts_with = "require")]
    pub(crate) unconfined: bool,
    /// Let the VMM execute this file, or the programs and libraries in this directory; may be repeated
    ///
    /// An example is the real VMM, if --vmm is a wrapper script that runs it.
    #[arg(long, requires = "image", value_name = "PATH")]
    pub(crate) vmm_program: Vec<PathBuf>,
    /// Where the VMM's private run directory is created [default: in the user's runtime directory]
    #[arg(long, requires = "image", value_name = "DIR")]
    pub(crate) run_root: Option<PathBuf>,
    /// Multiply every time limit by this factor; a guest without hardware virtualization needs about 10
    #[arg(long, requires = "image", value_name = "FACTOR", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) patience: u32,
}

pub(crate) fn environment(text: &str) -> Result<(OsString, OsString), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("it is not NAME=VALUE"),
    }
}

pub(crate) fn layer(name: &str) -> Result<Layer, String> {
    let found = Layer::ALL.into_iter().find(|layer| layer.name() == name);
    found.ok_or_else(|| {
        let names = Layer::ALL.map(Layer::name);
        format!("it is none of {}", names.join(", "))
    })
}

impl VmArgs {
    pub(crate) fn vmm(&self, binary: PathBuf) -> VmmConfig {
        let confinement = match self.unconfined {
            true => Confinement::off(),
            false => Confinement {
                require: self.require.clone(),
                ..Confinement::default()
            },
        };
        let mut config = VmmConfig {
            binary,
            env: self.vmm_env.clone(),
            confinement,
            programs: self.vmm_program.clone(),
            ..VmmConfig::default()
        };
        if let Some(run_root) = &self.run_root {
            config.run_root = run_root.clone();
        }
        config
    }

    pub(crate) fn shape(&self, image: &Image) -> VmShape {
        VmShape {
            kernel: image.kernel(),
            initramfs: Some(image.initramfs()),
            cmdline: image.cmdline().to_owned(),
            vcpus: self.vcpus,
            memory_mib: self.memory,
            cid: self.cid,
        }
    }

    pub(crate) fn limits(&self) -> TimeLimits {
        TimeLimits::default().scaled(self.patience)
    }

    /// How long a guest may take to settle before its snapshot.
    pub(crate) fn settle(&self) -> Duration {
        Duration::from_secs(10) * self.patience
    }
}

/// The disks of an image: a root disk that is read-only for the guest, and the overlay disk that takes its writes.
pub(crate) fn disks(image: &Image) -> Vec<Disk> {
    let root = Disk {
        role: DiskRole::Root,
        origin: image.root_disk(),
        readonly: true,
        format: DiskFormat::Raw,
    };
    let overlay = Disk {
        role: DiskRole::Overlay,
        origin: image.overlay_disk(),
        readonly: false,
        format: DiskFormat::Raw,
    };
    vec![root, overlay]
}
