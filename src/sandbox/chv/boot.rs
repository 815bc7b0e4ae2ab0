//! Boot: from nothing to ready, or back to nothing.

use std::fs::OpenOptions;
use std::path::Path;

use super::{Running, Shared};
use crate::client::Release;
use crate::golden::Golden;
use crate::machine::{self, Machine, MachineConfig, VmmSource};
use crate::sandbox::verify::{Verdict, verify};
use crate::sandbox::{BootFailure, Error, FailedReset, ResetOutcome, SandboxState};
use crate::vmm::{self, ShutdownReport};

/// The oldest release whose API is known to this crate.
const OLDEST_RELEASE: Release = Release::new(44, 0);

/// The device through which a VMM gets its virtual CPUs.
const KVM: &str = "/dev/kvm";

impl Shared {
    pub(super) async fn boot(
        self: &std::sync::Arc<Self>,
        slot: &mut Option<Running>,
    ) -> Result<(), Error> {
        match self.status.state() {
            SandboxState::Ready => return Ok(()),
            _ if self.status.is_halted() => return Err(self.status.not_ready("boot")),
            _ => {}
        }
        self.status.begin(SandboxState::Booting);
        if let Some(left) = slot.take() {
            left.stop().await;
        }
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

    async fn start(self: &std::sync::Arc<Self>) -> Result<Running, Error> {
        if let VmmSource::Spawn(_) = self.source {
            check_kvm()?;
        }
        let golden = match &self.config.golden {
            Some(directory) => Some(open_golden(directory).await?),
            None => None,
        };
        let machine = Machine::start(MachineConfig {
            vmm: self.source.clone(),
            disks: match &golden {
                Some(golden) => golden.disks(),
                None => self.config.disks(),
            },
            port: match &golden {
                Some(golden) => golden.manifest().guest.port,
                None => self.config.port,
            },
            limits: self.config.limits(),
        });
        let mut machine = machine.await.map_err(not_available_or_failed)?;
        let watcher = self.watch(&machine);
        let up = match &golden {
            Some(golden) => self.restore_verified(&mut machine, golden).await,
            None => self.boot_cold(&mut machine).await,
        };
        let running = Running {
            machine,
            golden,
            watcher,
        };
        match up {
            Ok(()) => {
                self.adopt_channel(&running);
                Ok(running)
            }
            Err(error) => {
                running.stop().await;
                Err(error)
            }
        }
    }

    async fn restore_verified(&self, machine: &mut Machine, golden: &Golden) -> Result<(), Error> {
        check_release(machine, Some(golden)).await?;
        let readings = machine.revert(&golden.snapshot()).await;
        let readings = readings.map_err(|error| failed(BootFailure::Machine(error)))?;
        let verification = verify(readings, golden.manifest(), 1);
        let outcome = ResetOutcome {
            state: verification.state,
            report: verification.report,
        };
        let refuse: fn(Box<FailedReset>) -> Error = match verification.verdict {
            Verdict::Passed => return Ok(()),
            Verdict::Diverged => Error::ResetDivergence,
            Verdict::Silent => Error::ResetTimeout,
        };
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

    /// Lets tools run on the machine's channel.
    pub(super) fn adopt_channel(self: &std::sync::Arc<Self>, running: &Running) {
        let channel = running
            .machine
            .channel()
            .expect("the machine is up")
            .clone();
        self.watch_channel(&channel);
        self.status.ready(channel);
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

fn failed(failure: BootFailure) -> Error {
    Error::BootFailed(failure)
}

async fn open_golden(directory: &Path) -> Result<Golden, Error> {
    let directory = directory.to_owned();
    let opened = tokio::task::spawn_blocking(move || Golden::open(&directory)).await;
    let opened = opened.expect("opening a golden snapshot doesn't panic");
    opened.map_err(|error| failed(BootFailure::Golden(error)))
}

fn check_kvm() -> Result<(), Error> {
    match OpenOptions::new().read(true).write(true).open(KVM) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::NotAvailable {
            reason: format!("{KVM} cannot be opened: {error}"),
            source: None,
        }),
    }
}

/// A VMM that isn't there is another matter than one that fails.
fn not_available_or_failed(error: machine::Error) -> Error {
    match error {
        machine::Error::Vmm(
            error @ (vmm::Error::BinaryNotFound { .. } | vmm::Error::NotExecutable { .. }),
        ) => Error::NotAvailable {
            reason: error.to_string(),
            source: None,
        },
        error => failed(BootFailure::Machine(error)),
    }
}

async fn check_release(machine: &Machine, golden: Option<&Golden>) -> Result<(), Error> {
    let release = machine.release().await;
    let release = release.map_err(|error| failed(BootFailure::Machine(error)))?;
    let reason = match golden.map(|golden| &golden.manifest().release) {
        _ if release < OLDEST_RELEASE => {
            format!("the VMM is {release}; {OLDEST_RELEASE} is the oldest that is supported")
        }
        Some(minted_by) if *minted_by != release.to_string() => {
            format!(
                "the VMM is {release}, the golden snapshot was minted by {minted_by}: mint it again"
            )
        }
        _ => return Ok(()),
    };
    Err(Error::NotAvailable {
        reason,
        source: None,
    })
}
