//! `boot` of the [`Driver`]: restores and verifies the golden snapshot, or boots cold in scaffold mode. A boot that
//! fails releases everything that it had started.

use std::sync::Arc;

use super::reset::Unverified;
use super::serving_machine::ServingMachine;
use super::{Driver, SharedParts};
use crate::machine::{self, GuestMemory, Machine, MachineConfig, VmmFiles};
use crate::sandbox::reset_target::{RevertFailure, check_release};
use crate::sandbox::shared_target::{self, SharedTarget};
use crate::sandbox::{
    BootFailure, Error, Event, SandboxOrigin, SandboxState, ScaffoldOrigin, Unavailable, VmmUsed,
};
use crate::vmm;

impl Driver {
    pub(super) async fn boot(&mut self) -> Result<(), Error> {
        match self.status.state() {
            SandboxState::Ready | SandboxState::NeedsReset { .. } => return Ok(()),
            SandboxState::Halted { .. } => return Err(self.status.not_ready("boot")),
            _ => {}
        }
        let _call = self.calls.change();
        self.status.set(SandboxState::Booting);
        self.release().await;
        let booted = self.bring_up().await;
        match &booted {
            Ok(()) => self.enter_service(),
            Err(error) => {
                self.release().await;
                let error = error.clone();
                self.status.set(SandboxState::Failed { error });
            }
        }
        booted
    }

    async fn bring_up(&mut self) -> Result<(), Error> {
        let settings = Arc::clone(&self.settings);
        if settings.needs_kvm {
            check_kvm()?;
        }
        let origin = match &settings.config.origin {
            SandboxOrigin::Golden(origin) => origin,
            SandboxOrigin::Scaffold(origin) => return self.boot_cold(origin).await,
        };
        let (source, limits) = (&settings.source, settings.config.limits);
        let golden = match &settings.shared {
            Some(SharedParts::Target(shared)) => {
                self.shared_target = Some(Arc::clone(shared));
                return self.restore().await;
            }
            Some(SharedParts::Golden(loaded)) => Arc::clone(loaded),
            None => shared_target::load(origin, source).await?,
        };
        let (events, calls) = (self.status.events(), self.calls.clone());
        let shared_target = SharedTarget::start(golden, origin, source, limits, events, calls);
        self.shared_target = Some(Arc::new(shared_target));
        self.restore().await
    }

    /// Restores and verifies the golden snapshot as a reset does.
    async fn restore(&mut self) -> Result<(), Error> {
        let target = self.target().expect("the target was just set");
        match self.revert_and_verify(&target).await {
            Ok(_) => {
                self.report_confinement();
                Ok(())
            }
            Err(Unverified::NotReverted(failure)) => Err(boot_failed(failure)),
            Err(Unverified::Failed(error)) => Err(failed(BootFailure::Unverified(error))),
        }
    }

    /// Boots the kernel and the disks of scaffold mode. Checks the VMM's release, and verifies nothing.
    async fn boot_cold(&mut self, origin: &ScaffoldOrigin) -> Result<(), Error> {
        let shape = origin.shape();
        let machine = MachineConfig {
            vmm: self.settings.source.clone(),
            disks: origin.disks(),
            memory: GuestMemory::ByPath,
            port: origin.port,
            files: VmmFiles::of_boot(&shape),
            limits: self.settings.config.limits,
        };
        let machine = self.start_machine(async { Ok(Machine::start(machine).await?) });
        let machine = machine.await.map_err(boot_failed)?;
        let used = match machine.vmm().process() {
            Some(_) => VmmUsed::New,
            None => VmmUsed::Attached,
        };
        let serving = self.serving.insert(ServingMachine::new(machine, used));
        let machine = &mut serving.machine;
        check_release(machine, None).await.map_err(boot_failed)?;
        let hello = machine.boot(&shape).await;
        let hello = hello.map_err(|error| failed(BootFailure::Machine(error)))?;
        if let Some(hello) = hello
            && !hello.is_same_build()
        {
            let guest = hello.build_id;
            tracing::warn!(%guest, "the guest's dispatcher was built from other sources than this library");
        }
        self.report_confinement();
        Ok(())
    }

    /// Sends the event [`Confinement`](Event::Confinement) with the layers of the VMM that serves, if this process
    /// started it.
    fn report_confinement(&self) {
        let serving = self.serving.as_ref();
        if let Some(vmm) = serving.map(|serving| serving.machine.vmm())
            && vmm.process().is_some()
        {
            self.status.emit(Event::Confinement(vmm.layers().to_vec()));
        }
    }
}

/// Checks that this process can open `/dev/kvm`.
pub(in crate::sandbox) fn check_kvm() -> Result<(), Error> {
    let opened = vmm::open_kvm(vmm::KVM_DEVICE.as_ref());
    let opened = opened.map_err(|error| Error::NotAvailable(Arc::new(Unavailable::Kvm(error))));
    opened.map(drop)
}

fn boot_failed(failure: RevertFailure) -> Error {
    match failure {
        RevertFailure::Golden(error) => failed(BootFailure::Golden(error)),
        RevertFailure::Machine(error) => not_available_or_failed(error),
        RevertFailure::Unavailable(reason) => Error::NotAvailable(Arc::new(reason)),
    }
}

fn failed(failure: BootFailure) -> Error {
    Error::BootFailed(Arc::new(failure))
}

/// [`Error::NotAvailable`] if the VMM can't be started on this host at all, otherwise [`Error::BootFailed`].
fn not_available_or_failed(error: machine::Error) -> Error {
    match error {
        machine::Error::Vmm(
            error @ (vmm::Error::BinaryNotFound { .. }
            | vmm::Error::NotExecutable { .. }
            | vmm::Error::LayerMissing { .. }
            | vmm::Error::ProcMasked(_)
            | vmm::Error::DiedAtStart {
                source: Some(_), ..
            }),
        ) => Error::NotAvailable(Arc::new(Unavailable::Vmm(error))),
        error => failed(BootFailure::Machine(error)),
    }
}
