//! What a sandbox returns to, with what is kept of it from reset to reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::golden::{self, Basis, Golden, HeldGolden, KnownExecutable, MemoryProof};
use crate::machine::{
    self, Description, KnownDisk, Machine, MachineConfig, RestoreMode, RestorePolicy, Staged,
    Target, VmmSource, blocking,
};
use crate::sandbox::report::Manner;
use crate::sandbox::verify::{Judgement, Verdict, verify};
use crate::sandbox::{Error, OlderGuest, SandboxConfig, StrategyUsed};

/// A source that was silent is asked once more, by a whole further revert.
const ATTEMPTS: u32 = 2;

/// A golden snapshot that is held, and how machines are made of it.
pub(super) struct Goal {
    held: Arc<HeldGolden>,
    machine: MachineConfig,
    target: Target,
    /// What the VMMs run, as it was compared with the manifest.
    executable: KnownExecutable,
    any_cpu: bool,
    older_guest: OlderGuest,
    /// The guest writes to a disk when nobody asks it anything.
    writes_idly: AtomicBool,
}

/// A staged VM with what its memory rests on.
pub(super) struct Prepared {
    staged: Staged,
    /// `None` where a disk disagrees with the manifest, which the verification will say.
    memory: Option<MemoryProof>,
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

impl Goal {
    /// Verifies every file of `golden`, and holds on to them.
    pub(super) async fn hold(
        golden: Golden,
        config: &SandboxConfig,
        source: &VmmSource,
    ) -> Result<Self, Failure> {
        let machine = MachineConfig {
            vmm: source.clone(),
            disks: golden.disks(),
            port: golden.manifest().guest.port,
            limits: config.limits(),
        };
        let policy = config.memory_policy;
        let held = blocking(move || golden.hold(policy)).await;
        let held = held.map_err(Failure::Golden)?;
        let description = Description::parse(&held.golden().snapshot(), held.config())?;
        Ok(Goal {
            held: Arc::new(held),
            machine,
            target: Target {
                description: Arc::new(description),
                restore: RestorePolicy::new(config.restore_mode),
                verification: config.verification,
                disks: Vec::new(),
            },
            executable: KnownExecutable::default(),
            any_cpu: config.any_cpu,
            older_guest: config.older_guest,
            writes_idly: AtomicBool::new(false),
        })
    }

    pub(super) fn golden(&self) -> &Golden {
        self.held.golden()
    }

    pub(super) fn machine(&self) -> MachineConfig {
        self.machine.clone()
    }

    /// Starts a VMM of which it is known that it may restore the snapshot.
    pub(super) async fn start(&self) -> Result<Machine, Failure> {
        let machine = Machine::start(self.machine()).await?;
        self.check_vmm(&machine).await?;
        Ok(machine)
    }

    /// Compares the VMM and this host with those that made the golden snapshot. Each process is compared: the file that
    /// has the VMM's name may be another one by now. A VMM that somebody else runs may be none at all, but a player of
    /// recordings: nothing is asked of it.
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

    /// What one VM holds at most, in bytes. One of unknown size fits nowhere.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.target.description.memory_bytes().unwrap_or(u64::MAX)
    }

    /// Restores the snapshot in `machine`, paused, and proves its memory and its disks. Whatever refuses the golden
    /// snapshot does so before the machine is touched.
    pub(super) async fn stage(&self, machine: &mut Machine) -> Result<Prepared, Failure> {
        let memory = self.prove(HeldGolden::recheck).await?;
        let before = self.target_now(memory.as_ref());
        let mut staged = machine.stage(&before).await?;
        // What was held before the VMM opened it has to be held still.
        let after = self.target_now(memory.as_ref());
        if after.disks != before.disks {
            staged = machine.recheck(staged, &after).await?;
        }
        let copied = staged.restored().mode == RestoreMode::Copy;
        let memory = match memory {
            Some(proof) if copied => Some(self.held.confirm(proof).map_err(Failure::Golden)?),
            proof => proof,
        };
        Ok(Prepared { staged, memory })
    }

    /// Has the guest of a staged VM answer once before it waits, so that it answers quickly when somebody does. One that
    /// writes to a disk meanwhile can't: it is staged anew and waits as it was restored, and so does every later one.
    pub(super) async fn rehearse(
        &self,
        machine: &mut Machine,
        prepared: Prepared,
    ) -> Result<Prepared, Failure> {
        if self.writes_idly.load(Ordering::Relaxed) {
            return Ok(prepared);
        }
        let Prepared { staged, memory } = prepared;
        match machine.rehearse(staged).await {
            Ok(staged) => Ok(Prepared { staged, memory }),
            Err(error @ machine::Error::GuestWrites { .. }) => {
                tracing::warn!(%error, "spares wait without having answered once");
                self.writes_idly.store(true, Ordering::Relaxed);
                self.stage(machine).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Proves again what has waited.
    pub(super) async fn recheck(
        &self,
        machine: &Machine,
        prepared: Prepared,
    ) -> Result<Prepared, Failure> {
        let Prepared { staged, memory } = prepared;
        // What the VM has yet to read must be what it was.
        let memory = match memory {
            Some(proof) => self.prove(move |held| held.renew(proof)).await?,
            None => None,
        };
        let target = self.target_now(memory.as_ref());
        let staged = machine.recheck(staged, &target).await?;
        Ok(Prepared { staged, memory })
    }

    /// Reverts `machine` and compares it with the baselines.
    pub(super) async fn revert(
        &self,
        machine: &mut Machine,
        strategy: StrategyUsed,
    ) -> Result<Judgement, Failure> {
        let prepared = self.stage(machine).await?;
        self.awaken(machine, prepared, strategy).await
    }

    /// Awakens what was staged and compares it with the baselines; once more from the start when a source was silent.
    pub(super) async fn awaken(
        &self,
        machine: &mut Machine,
        mut prepared: Prepared,
        strategy: StrategyUsed,
    ) -> Result<Judgement, Failure> {
        let mut attempt = 1;
        loop {
            let Prepared { staged, memory } = prepared;
            let readings = machine.awaken(staged).await?;
            let manner = Manner {
                strategy,
                memory,
                attempt,
                older_guest: self.older_guest,
            };
            let verification = verify(readings, self.golden().manifest(), &manner);
            if verification.verdict != Verdict::Silent || attempt == ATTEMPTS {
                return Ok(verification);
            }
            attempt += 1;
            prepared = self.stage(machine).await?;
        }
    }

    /// Waits until a file that a VM restored on `proof` has yet to read isn't held any more as it was.
    pub(super) async fn lost(&self, proof: &MemoryProof) {
        self.held.lost(proof).await;
    }

    /// Makes sure that the files of the snapshot are the manifest's. A disk that isn't is for the verification to find:
    /// it halts the sandbox, with the evidence.
    async fn prove(
        &self,
        prove: impl FnOnce(&HeldGolden) -> Result<MemoryProof, golden::Error> + Send + 'static,
    ) -> Result<Option<MemoryProof>, Failure> {
        let held = Arc::clone(&self.held);
        match blocking(move || prove(&held)).await {
            Ok(proof) => Ok(Some(proof)),
            Err(error) if error.is_of_a_disk() => Ok(None),
            Err(error) => Err(Failure::Golden(error)),
        }
    }

    /// The target with what is known and held at this moment.
    fn target_now(&self, memory: Option<&MemoryProof>) -> Target {
        let disks = self.golden().manifest().disks.iter();
        let known = disks.map(|disk| KnownDisk {
            role: disk.role,
            sha256: disk.sha256,
            fsverity: disk.fsverity,
            length: disk.length,
            held: match disk.readonly {
                true => self.held.held_disk(disk.role).map(|held| held.identity),
                false => None,
            },
        });
        // On demand is quicker, and proved where nobody can change the file whatever happens.
        let protected = memory.is_some_and(|proof| proof.basis == Basis::KernelVerity);
        let restore = &self.target.restore;
        Target {
            disks: known.collect(),
            restore: match protected {
                true => restore.on_demand_if_auto(),
                false => restore.clone(),
            },
            ..self.target.clone()
        }
    }
}
