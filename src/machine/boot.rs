//! The cold boot: a VM made from a kernel and disks, up to an open channel.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::layout::utf8;
use super::readings::Steps;
use super::{DiskFormat, DiskRole, Error, Machine, Reading, Step};
use crate::api;
use crate::api::types::{
    ConsoleConfig, ConsoleMode, CpusConfig, DiskConfig, ImageType, MemoryConfig, PayloadConfig,
    SerialConfig, VmConfig, VmState, VsockConfig,
};
use crate::vsock::GuestHello;

const BYTES_PER_MIB: u64 = 1 << 20;

/// What a VM is made of, apart from its disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmShape {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs, for a kernel that needs one.
    pub initramfs: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// How many vCPUs.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The guest's vsock CID, 3 or more.
    pub cid: u32,
}

impl Machine {
    /// Creates a VM in the empty slot, boots it, and opens the channel. `None`: the guest is older than the
    /// greeting. After a failure the slot is empty again: the server keeps a config from which it has silently
    /// dropped the device that failed, and would boot that the next time.
    ///
    /// # Errors
    ///
    /// [`Error::Disk`] for a disk that can't be copied, [`Error::File`] for a kernel or initramfs that can't be
    /// opened, [`Error::NotUtf8`] for a path that the VMM can't be told of, [`Error::Api`] when the VMM refused or its release
    /// doesn't know all that is asked, [`Error::NotAsSent`] when it dropped some of it,
    /// [`Error::GuestSilent`] when the guest didn't come up in time, [`Error::VmmDied`] when the VMM died
    /// meanwhile, [`Error::Channel`] when the guest broke the protocol.
    pub async fn boot(&mut self, shape: &VmShape) -> Result<Option<GuestHello>, Error> {
        let booted = self.try_boot(shape).await;
        if booted.is_err()
            && let Err(error) = self.delete().await
        {
            tracing::warn!(%error, "the VM that failed to boot could not be deleted");
        }
        booted
    }

    /// Deletes the VM and boots again from nothing, with fresh copies of the writable disks: the steps with their
    /// times, and the VM's state.
    ///
    /// # Errors
    ///
    /// Those of [`boot`](Self::boot).
    pub async fn reboot_cold(
        &mut self,
        shape: &VmShape,
    ) -> Result<(Vec<Step>, Reading<VmState>), Error> {
        let mut steps = Steps::start();
        self.delete().await?;
        steps.end("delete");
        self.boot(shape).await?;
        steps.end("boot");
        let state = self.read_vm_state().await?;
        steps.end("vm_state");
        Ok((steps.finish(), state))
    }

    async fn try_boot(&mut self, shape: &VmShape) -> Result<Option<GuestHello>, Error> {
        let until = Instant::now() + self.limits.boot;
        (self.occupied, self.served) = (true, true);
        let config = self.vm_config(shape)?;
        for disk in &self.disks {
            disk.put_back().await?;
        }
        match self.client().create_checked(&config).await {
            Ok(created) if created.is_exact() => {}
            Ok(created) => return Err(Error::NotAsSent(created)),
            Err(source) => return Err(self.explain("create the VM", source).await),
        }
        self.call("boot the VM", api::vm_boot()).await?;
        match self.open_channel(until).await {
            Err(Error::Channel(source)) if source.is_silence() => Err(Error::GuestSilent {
                console: self.console_tail(),
                source: Box::new(source),
            }),
            opened => opened,
        }
    }

    fn vm_config(&self, shape: &VmShape) -> Result<VmConfig, Error> {
        let mut disks = Vec::with_capacity(self.disks.len());
        for disk in &self.disks {
            disks.push(DiskConfig {
                path: Some(utf8("disk", &disk.path)?.to_owned()),
                readonly: Some(disk.readonly),
                image_type: Some(match disk.format {
                    DiskFormat::Raw => ImageType::Raw,
                    DiskFormat::Qcow2 => ImageType::Qcow2,
                }),
                backing_files: (!disk.backing.is_empty()).then_some(true),
                id: Some(disk_id(disk.role)),
                ..DiskConfig::default()
            });
        }
        let initramfs = match &shape.initramfs {
            Some(path) => Some(readable("initramfs", path)?),
            None => None,
        };
        let payload = PayloadConfig {
            kernel: Some(readable("kernel", &shape.kernel)?),
            initramfs,
            cmdline: Some(shape.cmdline.clone()),
            ..PayloadConfig::default()
        };
        let vsock = utf8("vsock socket", &self.layout.vsock())?.to_owned();
        let console = utf8("console", &self.layout.console)?.to_owned();
        let mut config = VmConfig {
            cpus: Some(CpusConfig::new(shape.vcpus, shape.vcpus)),
            memory: Some(MemoryConfig::new(shape.memory_mib * BYTES_PER_MIB)),
            payload: Some(payload),
            disks: Some(disks),
            vsock: Some(VsockConfig::new(shape.cid, vsock)),
            ..VmConfig::default()
        };
        // The console that the kernel is told to use is the one that is kept; the other is off.
        let to_file = Some(console);
        if shape.cmdline.contains("console=hvc") {
            config.console = Some(ConsoleConfig {
                file: to_file,
                ..ConsoleConfig::new(ConsoleMode::File)
            });
            config.serial = Some(SerialConfig::new(ConsoleMode::Off));
        } else {
            config.console = Some(ConsoleConfig::new(ConsoleMode::Off));
            config.serial = Some(SerialConfig {
                file: to_file,
                ..SerialConfig::new(ConsoleMode::File)
            });
        }
        Ok(config)
    }
}

/// The id that a disk gets in the VM, so that it is found again in a snapshot.
pub(super) fn disk_id(role: DiskRole) -> String {
    role.to_string()
}

/// The path of a file that the VMM will have to open. It is tried here since the VMM's own message for a
/// missing file names neither the file nor what it was for.
fn readable(what: &'static str, path: &Path) -> Result<String, Error> {
    let path = std::path::absolute(path).map_err(Error::file("resolve", path))?;
    std::fs::File::open(&path).map_err(Error::file("open", path.as_path()))?;
    Ok(utf8(what, &path)?.to_owned())
}
