//! The cold boot: creates a VM from a kernel and disks, boots it, and opens the channel to its guest.

use std::path::Path;
use std::time::Instant;

use super::layout::utf8;
use super::readings::Steps;
use super::vm_config::{VmDisk, VmFiles, VmShape, vm_config};
use super::{Error, Machine, Reading};
use crate::api;
use crate::api::types::VmState;
use crate::causes::Causes;
use crate::vsock::GuestHello;

impl Machine {
    /// Creates a VM, boots it, and opens the channel to its guest. Legal while the machine has no VM; leaves the VM
    /// running. Returns the guest's greeting, or `None` for a dispatcher that is older than the greeting.
    ///
    /// After a failure the VM is deleted. Otherwise the VMM would keep a configuration without the device that failed,
    /// and would boot that at the next attempt.
    ///
    /// # Errors
    ///
    /// - [`Error::Disk`]: a disk can't be copied.
    /// - [`Error::File`]: the kernel or the initramfs can't be opened.
    /// - [`Error::NotUtf8`]: a path isn't UTF-8, so it can't be sent to the VMM.
    /// - [`Error::Api`]: the VMM refused a call, or its release lacks a property of the configuration.
    /// - [`Error::NotAsSent`]: the VMM dropped or changed a part of the configuration.
    /// - [`Error::GuestSilent`]: the guest did not open the channel within the limit `boot`.
    /// - [`Error::VmmDied`]: the VMM's process ended.
    /// - [`Error::Channel`]: the guest broke the protocol.
    pub async fn boot(&mut self, shape: &VmShape) -> Result<Option<GuestHello>, Error> {
        let booted = self.try_boot(shape).await;
        if booted.is_err()
            && let Err(error) = self.delete().await
        {
            tracing::warn!(error = %Causes(&error), "the VM that failed to boot could not be deleted");
        }
        booted
    }

    /// Deletes the VM and boots a new one, with new copies of the writable disks. Returns the state of the new VM, and
    /// records the duration of each step in `steps`.
    ///
    /// # Errors
    ///
    /// Those of [`boot`](Self::boot).
    pub(crate) async fn reboot_cold(
        &mut self,
        shape: &VmShape,
        steps: &mut Steps,
    ) -> Result<Reading<VmState>, Error> {
        self.delete().await?;
        steps.end("delete");
        self.boot(shape).await?;
        steps.end("boot");
        let state = self.read_vm_state().await?;
        steps.end("vm_state");
        Ok(state)
    }

    /// Creates a VM and boots it without waiting for its guest, for a guest that has no dispatcher. Legal while the
    /// machine has no VM; leaves the VM running. After a failure call [`delete`](Self::delete), since the VMM may still
    /// have the VM.
    ///
    /// # Errors
    ///
    /// Those of [`boot`](Self::boot), except [`Error::GuestSilent`] and [`Error::Channel`].
    pub async fn boot_vm(&mut self, shape: &VmShape) -> Result<(), Error> {
        self.occupied = true;
        let payload = [Some(&shape.kernel), shape.initramfs.as_ref()];
        for path in payload.into_iter().flatten() {
            check_readable(path)?;
        }
        let config = vm_config(shape, &self.vm_files()?)?;
        for disk in &self.disks {
            disk.put_back().await?;
        }
        match self.client().create_checked(&config).await {
            Ok(drift) if drift.is_exact() => {}
            Ok(drift) => return Err(Error::NotAsSent(drift)),
            Err(source) => return Err(self.explain("create the VM", source).await),
        }
        self.call("boot the VM", api::vm_boot()).await?;
        self.hold_vsock()
    }

    async fn try_boot(&mut self, shape: &VmShape) -> Result<Option<GuestHello>, Error> {
        let until = Instant::now() + self.limits.boot;
        self.boot_vm(shape).await?;
        match self.open_channel(until).await {
            Err(Error::Channel(source)) if source.is_silence() => Err(Error::GuestSilent {
                console: self.console_tail(),
                source: Box::new(source),
            }),
            opened => opened,
        }
    }

    /// The paths that the VMM opens for this machine's VM.
    pub(super) fn vm_files(&self) -> Result<VmFiles, Error> {
        let mut disks = Vec::with_capacity(self.disks.len());
        for disk in &self.disks {
            disks.push(VmDisk {
                role: disk.role(),
                readonly: disk.given.readonly,
                format: disk.given.format,
                has_backing: !disk.backing.is_empty(),
                path: disk.name.clone(),
            });
        }
        Ok(VmFiles {
            disks,
            vsock: utf8("vsock socket", &self.layout.vsock())?.to_owned(),
            console: utf8("console", &self.layout.console)?.to_owned(),
        })
    }
}

/// Checks that a file can be opened before the VMM has to open it, since the VMM's own message for a missing file names
/// neither the file nor its purpose.
fn check_readable(path: &Path) -> Result<(), Error> {
    std::fs::File::open(path)
        .map(drop)
        .map_err(Error::file("open", path))
}
