//! What a sandbox returns to: a loaded golden snapshot, and how machines are reverted to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::causes::Causes;
use crate::golden::{self, Golden, HeldDisks, KnownExecutable, LoadedGolden};
use crate::machine::{
    self, FurtherFiles, KnownDisk, Machine, MachineConfig, RevertOptions, Staged, VmmSource,
    blocking,
};
use crate::sandbox::report::VerificationContext;
use crate::sandbox::verify::{Verdict, Verification, verify};
use crate::sandbox::{Error, OlderGuest, SandboxConfig, StrategyUsed};

/// A source that was silent is asked once more, by a whole further revert.
const ATTEMPTS: u32 = 2;

/// A loaded golden snapshot, with what is kept of it from reset to reset.
pub(super) struct ResetTarget {
    golden: Arc<LoadedGolden>,
    machine: MachineConfig,
    options: RevertOptions,
    /// What the VMMs run, as it was compared with the manifest.
    executable: KnownExecutable,
    any_cpu: bool,
    older_guest: OlderGuest,
    /// The guest writes to a disk without being asked anything.
    writes_idly: AtomicBool,
}

/// A staged VM, and the disks as they were held then.
pub(super) struct Prepared {
    staged: Staged,
    /// `None` where a disk disagrees with the manifest, which the verification will say.
    disks: Option<HeldDisks>,
}

/// A VM that was reverted, and compared with the baselines.
pub(super) struct Reverted {
    pub(super) verification: Verification,
    /// The disks that it goes on to read, as they were held.
    pub(super) disks: Option<HeldDisks>,
}

/// Why a VM couldn't be reverted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the golden snapshot cannot be used")]
    Golden(#[source] golden::Error),
    #[error("the machine failed")]
    Machine(#[source] machine::Error),
}

impl From<machine::Error> for Failure {
    fn from(error: machine::Error) -> Self {
        Failure::Machine(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Golden(error) => Error::ResetRefused(error),
            Failure::Machine(error) => Error::ResetFailed(error),
        }
    }
}

impl ResetTarget {
    /// Machines from `source` are reverted to `golden`.
    pub(super) fn new(
        golden: Arc<LoadedGolden>,
        config: &SandboxConfig,
        source: &VmmSource,
    ) -> Self {
        let snapshot = Arc::clone(golden.snapshot());
        ResetTarget {
            machine: MachineConfig {
                vmm: source.clone(),
                disks: golden.golden().disks(),
                memory: snapshot.memory().clone(),
                port: golden.golden().manifest().guest.port,
                files: FurtherFiles::of_restore(snapshot.shape()),
                limits: config.limits(),
            },
            options: RevertOptions {
                verification: config.verification,
                ..RevertOptions::new(snapshot)
            },
            executable: KnownExecutable::default(),
            any_cpu: config.any_cpu,
            older_guest: config.older_guest,
            writes_idly: AtomicBool::new(false),
            golden,
        }
    }

    pub(super) fn golden(&self) -> &Golden {
        self.golden.golden()
    }

    pub(super) fn machine(&self) -> MachineConfig {
        self.machine.clone()
    }

    /// Starts a VMM that was compared with the one that made the golden snapshot.
    pub(super) async fn start(&self) -> Result<Machine, Failure> {
        let machine = Machine::start(self.machine()).await?;
        self.check_vmm(&machine).await?;
        Ok(machine)
    }

    /// Compares the VMM and this host with those that made the golden snapshot. Each process is compared: the file that
    /// has the VMM's name may be another one by now. A VMM that another program runs may be a player of recordings, so it
    /// is asked nothing.
    pub(super) async fn check_vmm(&self, machine: &Machine) -> Result<(), Failure> {
        let Some(process) = machine.vmm().process() else {
            return Ok(());
        };
        let release = machine.release().await?.to_string();
        let golden = self.golden();
        let executable = match golden.manifest().vmm.executable {
            Some(_) => Some(self.executable.of_process(process).await),
            None => None,
        };
        let executable = executable.transpose().map_err(Failure::Golden)?;
        let checked = golden.check_host(&release, executable.as_ref(), self.any_cpu);
        checked.map_err(Failure::Golden)
    }

    /// What one VM holds at most, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.options.snapshot.shape().memory_bytes()
    }

    /// Restores the snapshot in `machine`, paused, and proves its memory and its disks. A golden snapshot that can't be
    /// used is refused before the machine is touched.
    pub(super) async fn stage(&self, machine: &mut Machine) -> Result<Prepared, Failure> {
        let disks = self.ensure_disks().await?;
        let before = self.options_now();
        let mut staged = machine.stage(&before).await?;
        // A disk that was held before the VMM opened it has to be held still.
        let after = self.options_now();
        if after.disks != before.disks {
            staged = machine.recheck(staged, &after).await?;
        }
        Ok(Prepared { staged, disks })
    }

    /// Lets the guest of a staged VM answer once before it waits, so that its next answers are quick. One that writes to a
    /// disk meanwhile is staged anew and waits as it was restored, and so does every later one.
    pub(super) async fn prewarm(
        &self,
        machine: &mut Machine,
        prepared: Prepared,
    ) -> Result<Prepared, Failure> {
        if self.writes_idly.load(Ordering::Relaxed) {
            return Ok(prepared);
        }
        let Prepared { staged, disks } = prepared;
        match machine.prewarm(staged).await {
            Ok(staged) => Ok(Prepared { staged, disks }),
            Err(error @ machine::Error::GuestWrites { .. }) => {
                tracing::warn!(error = %Causes(&error), "spares wait without having answered once");
                self.writes_idly.store(true, Ordering::Relaxed);
                self.stage(machine).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Proves again a staged VM that has waited.
    pub(super) async fn recheck(
        &self,
        machine: &Machine,
        prepared: Prepared,
    ) -> Result<Prepared, Failure> {
        let disks = self.ensure_disks().await?;
        let options = self.options_now();
        let staged = machine.recheck(prepared.staged, &options).await?;
        Ok(Prepared { staged, disks })
    }

    /// Reverts `machine` and compares it with the baselines.
    pub(super) async fn revert(
        &self,
        machine: &mut Machine,
        strategy: StrategyUsed,
    ) -> Result<Reverted, Failure> {
        let prepared = self.stage(machine).await?;
        self.resume_and_verify(machine, prepared, strategy).await
    }

    /// Resumes a staged VM and compares it with the baselines; once more from the start when a source was silent.
    pub(super) async fn resume_and_verify(
        &self,
        machine: &mut Machine,
        mut prepared: Prepared,
        strategy: StrategyUsed,
    ) -> Result<Reverted, Failure> {
        let mut attempt = 1;
        loop {
            let Prepared { staged, disks } = prepared;
            let readings = machine.resume_and_query(staged).await?;
            let context = VerificationContext {
                strategy,
                memory: self.golden.memory().clone(),
                layers: machine.vmm().layers().to_vec(),
                attempt,
                older_guest: self.older_guest,
            };
            let verification = verify(readings, self.golden().manifest(), &context);
            if verification.verdict != Verdict::Silent || attempt == ATTEMPTS {
                return Ok(Reverted {
                    verification,
                    disks,
                });
            }
            attempt += 1;
            prepared = self.stage(machine).await?;
        }
    }

    /// Waits until a disk that a VM goes on to read isn't held any more as it was.
    pub(super) async fn lost(&self, disks: &HeldDisks) {
        self.golden.lost(disks).await;
    }

    /// Makes sure that the manifest and the disks are what they were. A disk that isn't is for the verification to find:
    /// it halts the sandbox, with the evidence.
    async fn ensure_disks(&self) -> Result<Option<HeldDisks>, Failure> {
        let golden = Arc::clone(&self.golden);
        match blocking(move || golden.ensure_disks()).await {
            Ok(disks) => Ok(Some(disks)),
            Err(error) if error.is_of_a_disk() => Ok(None),
            Err(error) => Err(Failure::Golden(error)),
        }
    }

    /// The options with what is known and held of the disks at this moment.
    fn options_now(&self) -> RevertOptions {
        let disks = self.golden().manifest().disks.iter();
        let known = disks.map(|disk| KnownDisk {
            role: disk.role,
            sha256: disk.sha256,
            fsverity: disk.fsverity,
            length: disk.length,
            held: match disk.readonly {
                true => self.golden.held_disk(disk.role),
                false => None,
            }
            .map(|held| (held.identity, held.kind)),
        });
        RevertOptions {
            disks: known.collect(),
            ..self.options.clone()
        }
    }
}
