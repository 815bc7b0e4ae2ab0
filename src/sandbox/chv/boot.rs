//! Boot: from nothing to ready, or back to nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::reset_target::{Failure, ResetTarget, Reverted};
use super::spares::Refill;
use super::{Running, Shared};
use crate::client::Release;
use crate::golden::{self, Golden, HeldDisks, LoadedGolden, PublicKey, Trust};
use crate::machine::{
    self, FurtherFiles, GuestMemory, Machine, MachineConfig, VmmSource, blocking,
};
use crate::sandbox::verify::Verdict;
use crate::sandbox::{
    BootFailure, Error, Event, FailedReset, SandboxState, Strategy, StrategyUsed, Unavailable,
};
use crate::vmm::{self, ShutdownReport};

/// The oldest release whose API is known to this crate.
pub const OLDEST_RELEASE: Release = Release::new(44, 0);

impl Shared {
    pub(super) async fn boot(self: &Arc<Self>, slot: &mut Option<Running>) -> Result<(), Error> {
        match self.status.state() {
            SandboxState::Ready => return Ok(()),
            _ if self.status.is_halted() => return Err(self.status.not_ready("boot")),
            _ => {}
        }
        self.status.begin(SandboxState::Booting);
        self.clear(slot).await;
        match self.start().await {
            Ok(running) => {
                *slot = Some(running);
                Ok(())
            }
            Err(error) => {
                self.status.failed();
                Err(error)
            }
        }
    }

    async fn start(self: &Arc<Self>) -> Result<Running, Error> {
        if self.needs_kvm {
            let opened = vmm::open_kvm(vmm::KVM_DEVICE.as_ref());
            opened.map_err(|error| Error::NotAvailable(Unavailable::Kvm(error)))?;
        }
        let golden = match (&self.golden, &self.config.golden) {
            (Some(shared), _) => Some(Arc::clone(shared)),
            (None, Some(directory)) => Some(self.load(directory).await?),
            (None, None) => None,
        };
        let target = golden.map(|golden| {
            let target = ResetTarget::new(golden, &self.config, &self.source);
            Arc::new(target)
        });
        let shape = self.config.shape();
        let machine = match &target {
            Some(target) => target.machine(),
            None => MachineConfig {
                vmm: self.source.clone(),
                disks: self.config.disks(),
                memory: GuestMemory::ByPath,
                port: self.config.port,
                files: shape
                    .as_ref()
                    .map(FurtherFiles::of_boot)
                    .unwrap_or_default(),
                limits: self.config.limits(),
            },
        };
        let machine = Machine::start(machine).await;
        let mut machine = machine.map_err(not_available_or_failed)?;
        let watcher = self.watch(&machine);
        if machine.vmm().process().is_some() {
            let layers = machine.vmm().layers().to_vec();
            self.status.tell(Event::Boundary(layers));
        }
        let up = match &target {
            Some(target) => self.restore_verified(&mut machine, target).await,
            None => self.boot_cold(&mut machine).await.map(|()| None),
        };
        let mut running = Running {
            machine,
            given_up: false,
            target,
            watcher,
            golden_watcher: None,
        };
        match up {
            Ok(disks) => {
                self.adopt(&mut running, disks);
                self.keep_spares(running.target.as_ref());
                Ok(running)
            }
            Err(error) => {
                running.stop().await;
                Err(error)
            }
        }
    }

    /// Opens the golden snapshot in `directory`, verifies it, and makes its memory immutable.
    async fn load(&self, directory: &Path) -> Result<Arc<LoadedGolden>, Error> {
        let directory = directory.to_owned();
        let key = self.config.public_key.clone();
        let digest = self.config.golden_digest;
        let mut options = self.config.load_options();
        options.attached_vmm = matches!(self.source, VmmSource::Attach { .. });
        let loaded = blocking(move || {
            let key = key.map(|key| PublicKey::load(&key)).transpose();
            let trust = Trust {
                signed_by: key.map_err(golden::Error::Key)?,
                digest,
            };
            Golden::open_trusted(&directory, &trust)?.load(&options)
        });
        let loaded = loaded.await;
        let loaded = loaded.map_err(|error| failed(BootFailure::Golden(error)))?;
        tracing::info!(memory = ?loaded.memory(), "the golden snapshot is loaded");
        Ok(Arc::new(loaded))
    }

    /// Has spares made for the resets to come, if that is the strategy.
    fn keep_spares(&self, target: Option<&Arc<ResetTarget>>) {
        let (Strategy::Standby(standby), Some(target)) = (self.config.strategy, target) else {
            return;
        };
        let memory = target.memory_bytes();
        let capacity = standby.capacity(memory);
        if capacity == 0 {
            let budget_mib = standby.memory_budget_mib;
            tracing::warn!(memory, budget_mib, "no spare fits into the memory budget");
            return;
        }
        self.spares.start(Refill {
            target: Arc::clone(target),
            capacity,
            max_age: Duration::from_secs(standby.max_age_s),
            busy: self.busy.subscribe(),
            status: Arc::clone(&self.status),
        });
    }

    /// Restores the golden snapshot: the disks that the VM goes on to read, as they were held.
    async fn restore_verified(
        self: &Arc<Self>,
        machine: &mut Machine,
        target: &ResetTarget,
    ) -> Result<Option<HeldDisks>, Error> {
        check_release(machine, Some(target.golden())).await?;
        target.check_vmm(machine).await.map_err(boot_failed)?;
        let reverted = target.revert(machine, StrategyUsed::Respawn).await;
        let Reverted {
            verification,
            disks,
        } = reverted.map_err(boot_failed)?;
        let refuse: fn(Box<FailedReset>) -> Error = match verification.verdict {
            Verdict::Passed => return Ok(disks),
            Verdict::Diverged => Error::ResetDivergence,
            Verdict::Silent => Error::ResetTimeout,
        };
        let outcome = verification.outcome;
        let evidence = self.keep_evidence(machine, &outcome).await;
        let error = refuse(Box::new(FailedReset { outcome, evidence }));
        Err(failed(BootFailure::Unverified(Box::new(error))))
    }

    /// Scaffold mode.
    async fn boot_cold(&self, machine: &mut Machine) -> Result<(), Error> {
        check_release(machine, None).await?;
        let shape = self
            .config
            .shape()
            .expect("checked: scaffold mode has a kernel");
        let hello = machine.boot(&shape).await;
        let hello = hello.map_err(|error| failed(BootFailure::Machine(error)))?;
        if let Some(hello) = hello
            && !hello.is_same_build()
        {
            let guest = hello.build_id;
            tracing::warn!(%guest, "the guest's dispatcher is of another build than this library");
        }
        Ok(())
    }

    /// Lets tools run on the machine's channel. Its VM goes on to read `disks`.
    pub(super) fn adopt(self: &Arc<Self>, running: &mut Running, disks: Option<HeldDisks>) {
        let channel = running
            .machine
            .channel()
            .expect("the machine is up")
            .clone();
        self.watch_channel(&channel);
        self.status.ready(channel);
        running.golden_watcher = match (&running.target, disks) {
            (Some(target), Some(disks)) => Some(self.watch_golden(target, disks)),
            _ => None,
        };
    }
}

impl Running {
    pub(super) async fn stop(self) -> Option<ShutdownReport> {
        let Running {
            machine, watcher, ..
        } = self;
        // First, so that an end that was asked for isn't taken for a failure.
        drop(watcher);
        machine.shutdown().await
    }
}

fn boot_failed(failure: Failure) -> Error {
    failed(match failure {
        Failure::Golden(error) => BootFailure::Golden(error),
        Failure::Machine(error) => BootFailure::Machine(error),
    })
}

fn failed(failure: BootFailure) -> Error {
    Error::BootFailed(failure)
}

/// A VMM that isn't there is another matter than one that fails.
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
        ) => Error::NotAvailable(Unavailable::Vmm(error)),
        error => failed(BootFailure::Machine(error)),
    }
}

async fn check_release(machine: &Machine, golden: Option<&Golden>) -> Result<(), Error> {
    let release = machine.release().await;
    let release = release.map_err(|error| failed(BootFailure::Machine(error)))?;
    let oldest = OLDEST_RELEASE;
    if release < oldest {
        return Err(Error::NotAvailable(Unavailable::TooOld { release, oldest }));
    }
    match golden.map(|golden| golden.manifest().release.clone()) {
        Some(minted_by) if minted_by != release.to_string() => {
            Err(Error::NotAvailable(Unavailable::AnotherRelease {
                release,
                minted_by,
            }))
        }
        _ => Ok(()),
    }
}
