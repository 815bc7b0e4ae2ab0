//! [`ResetTarget`]: what a sandbox is reset to. It is a loaded golden snapshot with the options to revert machines to
//! it. `driver::reset` chooses the machine: a spare, an empty VMM that was started ahead, or the one that serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Error, GoldenOrigin, OlderGuest, Unavailable};
use crate::causes::Causes;
use crate::client::Release;
use crate::golden::{self, Golden, HeldDisks, LoadedGolden, LoadedMemory};
use crate::limits::TimeLimits;
use crate::machine::{
    self, Machine, MachineConfig, RecordedDisk, RevertOptions, Staged, Steps, VmmFiles, VmmSource,
};
use crate::offload::blocking;
use crate::overlay::RecordedBytes;

/// The oldest release of Cloud Hypervisor that sandboxes run on: v44.0. A boot refuses an older one with
/// [`Unavailable::TooOld`].
pub const OLDEST_RELEASE: Release = Release::new(44, 0);

/// A loaded golden snapshot, and the settings to start machines and revert them to it.
pub(super) struct ResetTarget {
    golden: Arc<LoadedGolden>,
    machine: MachineConfig,
    options: RevertOptions,
    any_cpu: bool,
    pub(super) older_guest: OlderGuest,
    /// Whether the guest was seen to write to a disk by itself. Such a guest isn't prewarmed.
    writes_idly: AtomicBool,
}

/// Why a VM could not be reverted.
#[derive(Debug, thiserror::Error)]
pub(super) enum RevertFailure {
    #[error("the golden snapshot cannot be used")]
    Golden(#[source] golden::Error),
    #[error("the machine failed")]
    Machine(#[source] machine::Error),
    #[error("the VMM is of another release")]
    Unavailable(#[source] Unavailable),
}

impl From<machine::Error> for RevertFailure {
    fn from(error: machine::Error) -> Self {
        RevertFailure::Machine(error)
    }
}

impl From<RevertFailure> for Error {
    fn from(failure: RevertFailure) -> Self {
        match failure {
            RevertFailure::Golden(error) => Error::ResetRefused(Arc::new(error)),
            RevertFailure::Machine(error) => Error::ResetFailed(Arc::new(error)),
            RevertFailure::Unavailable(reason) => Error::NotAvailable(Arc::new(reason)),
        }
    }
}

impl ResetTarget {
    /// A target that reverts machines from `source` to `golden`, with the settings of `origin` and within `limits`.
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
                files: VmmFiles::of_restore(snapshot.shape()),
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

    /// Starts a VMM, and compares its release, its executable and this host with those that made the golden snapshot.
    /// Every process is compared, because the executable may have been replaced since the last one started. Of a VMM
    /// that another program runs, which may be a player of recordings, only the release is compared.
    pub(super) async fn start(&self) -> Result<Machine, RevertFailure> {
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
        let executable = executable.transpose().map_err(RevertFailure::Golden)?;
        let checked = golden.check_host(&release.to_string(), executable.as_ref(), self.any_cpu);
        checked.map_err(RevertFailure::Golden)?;
        Ok(machine)
    }

    /// Checks that the manifest, the disks and the memory are unchanged, before a running VM is touched. Returns the
    /// hold of the disks. If a disk has changed, returns `None` and lets the revert go on: its verification finds the
    /// disk, halts the sandbox and keeps evidence.
    pub(super) async fn ensure(&self) -> Result<Option<HeldDisks>, RevertFailure> {
        match self.options.snapshot.memory().ensure().await {
            Err(machine::Error::Memory(error)) => {
                return Err(RevertFailure::Golden(golden::Error::Memory(error)));
            }
            ensured => drop(ensured?),
        }
        let golden = Arc::clone(&self.golden);
        match blocking(move || golden.ensure_disks()).await {
            Ok(disks) => Ok(Some(disks)),
            Err(error) if error.is_of_a_disk() => Ok(None),
            Err(error) => Err(RevertFailure::Golden(error)),
        }
    }

    /// Restores the snapshot in `machine`, leaves the VM paused, and proves its memory and its disks.
    pub(super) async fn stage(
        &self,
        machine: &mut Machine,
        steps: &mut Steps,
    ) -> Result<Staged, machine::Error> {
        let before = self.options_now();
        let staged = machine.stage(&before, steps).await?;
        // A disk that was held before the VMM opened it has to be held by the same hold now. Otherwise its proof is
        // made again.
        let after = self.options_now();
        match after.disks == before.disks {
            true => Ok(staged),
            false => machine.recheck(staged, &after, steps).await,
        }
    }

    /// Lets the guest of a staged VM answer once before it waits, so that its next answers are quick. If the guest
    /// writes to a disk meanwhile, the VM is staged anew and waits without a prewarm, as does every later VM of this
    /// target.
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
                tracing::warn!(error = %Causes(&error), "spares are not prewarmed from now on");
                self.writes_idly.store(true, Ordering::Relaxed);
                self.stage(machine, &mut Steps::start()).await
            }
            result => result,
        }
    }

    /// Proves a staged VM once more after it has waited.
    pub(super) async fn recheck(
        &self,
        machine: &mut Machine,
        staged: Staged,
        steps: &mut Steps,
    ) -> Result<Staged, machine::Error> {
        machine.recheck(staged, &self.options_now(), steps).await
    }

    /// Waits until one of the disks of `disks`, which a VM still reads, isn't held any more.
    pub(super) async fn lost(self: Arc<Self>, disks: HeldDisks) {
        self.golden.lost(&disks).await;
    }

    /// The revert options, with the disks that are held at this moment.
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

/// The release of a machine's VMM. Refuses a release older than [`OLDEST_RELEASE`], and one that didn't make `golden`.
pub(super) async fn check_release(
    machine: &Machine,
    golden: Option<&Golden>,
) -> Result<Release, RevertFailure> {
    let release = machine.release().await?;
    let oldest = OLDEST_RELEASE;
    if release < oldest {
        let reason = Unavailable::TooOld { release, oldest };
        return Err(RevertFailure::Unavailable(reason));
    }
    match golden.map(|golden| golden.manifest().release.clone()) {
        Some(minted_by) if minted_by != release.to_string() => {
            Err(RevertFailure::Unavailable(Unavailable::AnotherRelease {
                release,
                minted_by,
            }))
        }
        _ => Ok(release),
    }
}
