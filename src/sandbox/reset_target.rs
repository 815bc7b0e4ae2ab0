//! What a sandbox returns to: a loaded golden snapshot, and how machines are reverted to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Error, GoldenOrigin, OlderGuest, Unavailable};
use crate::causes::Causes;
use crate::client::Release;
use crate::golden::{self, Golden, HeldDisks, LoadedGolden, LoadedMemory};
use crate::limits::TimeLimits;
use crate::machine::{
    self, FurtherFiles, Machine, MachineConfig, RecordedDisk, RevertOptions, Staged, Steps,
    VmmSource,
};
use crate::offload::blocking;
use crate::overlay::RecordedBytes;

/// The oldest release whose API is known to this crate.
pub const OLDEST_RELEASE: Release = Release::new(44, 0);

/// A loaded golden snapshot, with what is kept of it from reset to reset.
pub(super) struct ResetTarget {
    golden: Arc<LoadedGolden>,
    machine: MachineConfig,
    options: RevertOptions,
    any_cpu: bool,
    pub(super) older_guest: OlderGuest,
    /// The guest writes to a disk without being asked anything.
    writes_idly: AtomicBool,
}

/// Why a VM couldn't be reverted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the golden snapshot cannot be used")]
    Golden(#[source] golden::Error),
    #[error("the machine failed")]
    Machine(#[source] machine::Error),
    #[error("the VMM is of another release")]
    Unavailable(#[source] Unavailable),
}

impl From<machine::Error> for Failure {
    fn from(error: machine::Error) -> Self {
        Failure::Machine(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Golden(error) => Error::ResetRefused(Arc::new(error)),
            Failure::Machine(error) => Error::ResetFailed(Arc::new(error)),
            Failure::Unavailable(reason) => Error::NotAvailable(Arc::new(reason)),
        }
    }
}

impl ResetTarget {
    /// Machines from `source` are reverted to `golden` as `origin` says, within `limits`.
    pub(super) fn new(
        golden: Arc<LoadedGolden>,
        origin: &GoldenOrigin,
        source: &VmmSource,
        limits: TimeLimits,
    ) -> Self {
        let snapshot = Arc::clone(golden.snapshot());
        ResetTarget {
            machine: MachineConfig {
                vmm: source.clone(),
                disks: golden.golden().disks(),
                memory: snapshot.memory().clone(),
                port: golden.golden().manifest().guest.port,
                files: FurtherFiles::of_restore(snapshot.shape()),
                limits,
            },
            options: RevertOptions {
                verification: origin.verification,
                ..RevertOptions::new(snapshot)
            },
            any_cpu: origin.any_cpu,
            older_guest: origin.older_guest,
            writes_idly: AtomicBool::new(false),
            golden,
        }
    }

    pub(super) fn golden(&self) -> &Golden {
        self.golden.golden()
    }

    pub(super) fn memory(&self) -> &LoadedMemory {
        self.golden.memory()
    }

    /// Starts a VMM, and compares it and this host with those that made the golden snapshot. Each process is compared: the
    /// file that has the VMM's name may be another one by now. A VMM that another program runs is only asked for its
    /// release: it may be a player of recordings.
    pub(super) async fn start(&self) -> Result<Machine, Failure> {
        let machine = Machine::start(self.machine.clone()).await?;
        let release = check_release(&machine, Some(self.golden())).await?;
        let Some(process) = machine.vmm().process() else {
            return Ok(machine);
        };
        let golden = self.golden();
        let executable = match golden.manifest().vmm.executable {
            Some(_) => Some(self.golden.vmm_executable(process).await),
            None => None,
        };
        let executable = executable.transpose().map_err(Failure::Golden)?;
        let checked = golden.check_host(&release.to_string(), executable.as_ref(), self.any_cpu);
        checked.map_err(Failure::Golden)?;
        Ok(machine)
    }

    /// Makes sure that the manifest, the disks and the memory are what they were, before a VM that runs is touched. A disk
    /// that isn't is for the verification to find, which halts the sandbox, with the evidence: `None` then.
    pub(super) async fn ensure(&self) -> Result<Option<HeldDisks>, Failure> {
        match self.options.snapshot.memory().ensure().await {
            Err(machine::Error::Memory(error)) => {
                return Err(Failure::Golden(golden::Error::Memory(error)));
            }
            ensured => drop(ensured?),
        }
        let golden = Arc::clone(&self.golden);
        match blocking(move || golden.ensure_disks()).await {
            Ok(disks) => Ok(Some(disks)),
            Err(error) if error.is_of_a_disk() => Ok(None),
            Err(error) => Err(Failure::Golden(error)),
        }
    }

    /// Restores the snapshot in `machine`, paused, and proves its memory and its disks.
    pub(super) async fn stage(
        &self,
        machine: &mut Machine,
        steps: &mut Steps,
    ) -> Result<Staged, machine::Error> {
        let before = self.options_now();
        let staged = machine.stage(&before, steps).await?;
        // A disk that was held before the VMM opened it has to be held still.
        let after = self.options_now();
        match after.disks == before.disks {
            true => Ok(staged),
            false => machine.recheck(staged, &after, steps).await,
        }
    }

    /// Lets the guest of a staged VM answer once before it waits, so that its next answers are quick. One that writes to a
    /// disk meanwhile is staged anew and waits as it was restored, and so does every later one.
    pub(super) async fn prewarm(
        &self,
        machine: &mut Machine,
        staged: Staged,
    ) -> Result<Staged, machine::Error> {
        if self.writes_idly.load(Ordering::Relaxed) {
            return Ok(staged);
        }
        match machine.prewarm(staged, &self.options_now()).await {
            Err(error @ machine::Error::GuestWrites { .. }) => {
                tracing::warn!(error = %Causes(&error), "spares wait without having answered once");
                self.writes_idly.store(true, Ordering::Relaxed);
                self.stage(machine, &mut Steps::start()).await
            }
            result => result,
        }
    }

    /// Proves again a staged VM that has waited.
    pub(super) async fn recheck(
        &self,
        machine: &mut Machine,
        staged: Staged,
        steps: &mut Steps,
    ) -> Result<Staged, machine::Error> {
        machine.recheck(staged, &self.options_now(), steps).await
    }

    /// Waits until a disk that a VM goes on to read isn't held any more as it was.
    pub(super) async fn lost(self: Arc<Self>, disks: HeldDisks) {
        self.golden.lost(&disks).await;
    }

    /// The options with what is held of the disks at this moment.
    fn options_now(&self) -> RevertOptions {
        let disks = self.golden().manifest().disks.iter();
        let recorded = disks.map(|disk| RecordedDisk {
            role: disk.role,
            bytes: RecordedBytes {
                sha256: disk.sha256,
                fsverity: disk.fsverity,
                length: disk.length,
            },
            held: match disk.readonly {
                true => self.golden.held_disk(disk.role),
                false => None,
            },
        });
        RevertOptions {
            disks: recorded.collect(),
            ..self.options.clone()
        }
    }
}

/// The release of a machine's VMM, if this crate knows it and it is the one that made `golden`.
pub(super) async fn check_release(
    machine: &Machine,
    golden: Option<&Golden>,
) -> Result<Release, Failure> {
    let release = machine.release().await?;
    let oldest = OLDEST_RELEASE;
    if release < oldest {
        let reason = Unavailable::TooOld { release, oldest };
        return Err(Failure::Unavailable(reason));
    }
    match golden.map(|golden| golden.manifest().release.clone()) {
        Some(minted_by) if minted_by != release.to_string() => {
            Err(Failure::Unavailable(Unavailable::AnotherRelease {
                release,
                minted_by,
            }))
        }
        _ => Ok(release),
    }
}
