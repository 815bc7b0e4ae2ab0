//! Builds the configuration of a machine's VM ([`vm_config`]), both for the cold boot and for the restore of a
//! snapshot.

use std::path::{Path, PathBuf};

use super::layout::utf8;
use super::{DiskFormat, DiskRole, Error};
use crate::api::types::{
    ConsoleConfig, ConsoleMode, CpusConfig, DiskConfig, ImageType, MemoryConfig, PayloadConfig,
    SerialConfig, VmConfig, VsockConfig,
};

const BYTES_PER_MIB: u64 = 1 << 20;

/// The size of a VM, its kernel and its vsock address. Its disks are part of [`MachineConfig`](super::MachineConfig).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmShape {
    /// The path of the kernel.
    pub kernel: PathBuf,
    /// The path of the initramfs, for a kernel that needs one.
    pub initramfs: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// The number of vCPUs.
    pub vcpus: u32,
    /// The guest's memory, in MiB.
    pub memory_mib: u64,
    /// The guest's vsock CID, 3 or more.
    pub cid: u32,
}

impl VmShape {
    /// The guest's memory in bytes; `u64::MAX` if the number of bytes doesn't fit into a `u64`.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_mib.saturating_mul(BYTES_PER_MIB)
    }
}

/// A disk as the VM's configuration describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VmDisk {
    pub(super) role: DiskRole,
    pub(super) readonly: bool,
    pub(super) format: DiskFormat,
    /// Whether the disk is a qcow2 image with backing files.
    pub(super) has_backing: bool,
    /// The path by which the VMM opens the disk.
    pub(super) path: String,
}

/// The files that the VMM opens for a VM, each by the path that the configuration has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VmFiles {
    pub(super) disks: Vec<VmDisk>,
    pub(super) vsock: String,
    pub(super) console: String,
}

/// Builds the configuration of a VM of this shape with these files.
pub(super) fn vm_config(shape: &VmShape, files: &VmFiles) -> Result<VmConfig, Error> {
    let initramfs = shape.initramfs.as_deref();
    let payload = PayloadConfig {
        kernel: Some(absolute("kernel", &shape.kernel)?),
        initramfs: initramfs
            .map(|path| absolute("initramfs", path))
            .transpose()?,
        cmdline: Some(shape.cmdline.clone()),
        ..PayloadConfig::default()
    };
    let (serial, console) = consoles(&shape.cmdline, &files.console);
    Ok(VmConfig {
        cpus: Some(CpusConfig::new(shape.vcpus, shape.vcpus)),
        memory: Some(MemoryConfig::new(shape.memory_bytes())),
        payload: Some(payload),
        disks: Some(files.disks.iter().map(disk_config).collect()),
        vsock: Some(VsockConfig::new(shape.cid, files.vsock.clone())),
        serial: Some(serial),
        console: Some(console),
        ..VmConfig::default()
    })
}

fn disk_config(disk: &VmDisk) -> DiskConfig {
    DiskConfig {
        path: Some(disk.path.clone()),
        readonly: Some(disk.readonly),
        image_type: Some(match disk.format {
            DiskFormat::Raw => ImageType::Raw,
            DiskFormat::Qcow2 => ImageType::Qcow2,
        }),
        backing_files: disk.has_backing.then_some(true),
        id: Some(disk.role.to_string()),
        ..DiskConfig::default()
    }
}

/// Connects the console that the kernel's command line names to `file`, and turns the other one off.
fn consoles(cmdline: &str, file: &str) -> (SerialConfig, ConsoleConfig) {
    let file = Some(file.to_owned());
    match cmdline.contains("console=hvc") {
        true => (
            SerialConfig::new(ConsoleMode::Off),
            ConsoleConfig {
                file,
                ..ConsoleConfig::new(ConsoleMode::File)
            },
        ),
        false => (
            SerialConfig {
                file,
                ..SerialConfig::new(ConsoleMode::File)
            },
            ConsoleConfig::new(ConsoleMode::Off),
        ),
    }
}

/// Makes a path absolute, since the VMM would resolve a relative one against its own working directory.
fn absolute(what: &'static str, path: &Path) -> Result<String, Error> {
    let path = std::path::absolute(path).map_err(Error::file("resolve", path))?;
    Ok(utf8(what, &path)?.to_owned())
}
