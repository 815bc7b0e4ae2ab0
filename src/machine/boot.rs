//! The cold boot: a VM made from a kernel and disks, up to an open channel.

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
            tracing::warn!(error = %Causes(&error), "the VM that failed to boot could not be deleted");
        }
        booted
    }

    /// Deletes the VM and boots again from nothing, with fresh copies of the writable disks. The VM's state.
    ///
    /// # Errors
    ///
    /// Those of [`boot`](Self::boot).
    pub async fn reboot_cold(
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

    /// Creates a VM in the empty slot and boots it, without waiting for its guest: for one that has no dispatcher. After
    /// a failure [`delete`](Self::delete) what may be left of it.
    ///
    /// # Errors
    ///
    /// Those of [`boot`](Self::boot) but for the guest's.
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

    /// What the VMM opens for this machine's VM.
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

/// Opens a file that the VMM will have to open: the VMM's own message for a missing file names neither the file nor what
/// it is for.
fn check_readable(path: &Path) -> Result<(), Error> {
    std::fs::File::open(path)
        .map(drop)
        .map_err(Error::file("open", path))
}
