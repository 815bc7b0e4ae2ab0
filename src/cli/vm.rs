//! The arguments of commands that start a VM from an image.

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
    /// The VMM's executable; a bare name is looked up in PATH
    #[arg(
        long = "vmm",
        value_name = "BIN",
        env = "CLOUD_HYPERVISOR",
        default_value = "cloud-hypervisor"
    )]
    pub(crate) path: PathBuf,
}

/// How the VM is made. Each setting needs the argument `image` of its command: without one no VM is made.
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
    /// Extra environment of the VMM's process, as NAME=VALUE; may be repeated
    #[arg(long, requires = "image", value_name = "NAME=VALUE", value_parser = environment)]
    pub(crate) vmm_env: Vec<(OsString, OsString)>,
    /// Layers of the boundary around the VMM that have to be in force, as landlock,namespaces; each that this host has is in
    /// any case
    #[arg(long, requires = "image", value_name = "LAYERS", value_delimiter = ',', value_parser = layer)]
    pub(crate) require: Vec<Layer>,
    /// Start the VMM without a boundary
    #[arg(long, requires = "image", conflicts_with = "require")]
    pub(crate) unconfined: bool,
    /// A file or folder that the VMM may run programs and libraries from, such as the VMM that a wrapper script runs; may be
    /// repeated
    #[arg(long, requires = "image", value_name = "PATH")]
    pub(crate) vmm_program: Vec<PathBuf>,
    /// Where the VMM's private directory is made [default: in the user's runtime directory]
    #[arg(long, requires = "image", value_name = "DIR")]
    pub(crate) run_root: Option<PathBuf>,
    /// Multiplies every time limit; an emulated guest needs 10 or so
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

    /// How long a guest may take to come to rest before its snapshot.
    pub(crate) fn settle(&self) -> Duration {
        Duration::from_secs(10) * self.patience
    }
}

/// The disks of an image: a root that the guest can't write, and the overlay that takes its writes.
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
