//! What a sandbox returns to, with what is kept of it from reset to reset.

use std::sync::Arc;

use crate::golden::Golden;
use crate::machine::{
    self, Description, Machine, MachineConfig, RestorePolicy, Staged, Target, VmmSource,
};
use crate::sandbox::report::Manner;
use crate::sandbox::verify::{Verdict, Verification, verify};
use crate::sandbox::{SandboxConfig, StrategyUsed};

/// A source that was silent is asked once more, by a whole further revert.
const ATTEMPTS: u32 = 2;

/// A golden snapshot, and how machines are made of it.
pub(super) struct Goal {
    golden: Golden,
    machine: MachineConfig,
    target: Target,
}

impl Goal {
    pub(super) fn new(
        golden: Golden,
        config: &SandboxConfig,
        source: &VmmSource,
    ) -> Result<Self, machine::Error> {
        let machine = MachineConfig {
            vmm: source.clone(),
            disks: golden.disks(),
            port: golden.manifest().guest.port,
            limits: config.limits(),
        };
        let target = Target {
            description: Arc::new(Description::read(&golden.snapshot())?),
            restore: RestorePolicy::new(config.restore_mode),
            verification: config.verification,
        };
        Ok(Goal {
            golden,
            machine,
            target,
        })
    }

    pub(super) fn golden(&self) -> &Golden {
        &self.golden
    }

    pub(super) fn machine(&self) -> MachineConfig {
        self.machine.clone()
    }

    /// What one VM holds at most, in bytes. One of unknown size fits nowhere.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.target.description.memory_bytes().unwrap_or(u64::MAX)
    }

    /// Restores the snapshot in `machine`, paused, and proves its disks.
    pub(super) async fn stage(&self, machine: &mut Machine) -> Result<Staged, machine::Error> {
        machine.stage(&self.target).await
    }

    /// Proves again what has waited.
    pub(super) async fn recheck(
        &self,
        machine: &Machine,
        staged: Staged,
    ) -> Result<Staged, machine::Error> {
        machine.recheck(staged, &self.target).await
    }

    /// Reverts `machine` and compares it with the baselines.
    pub(super) async fn revert(
        &self,
        machine: &mut Machine,
        strategy: StrategyUsed,
    ) -> Result<Verification, machine::Error> {
        let staged = self.stage(machine).await?;
        self.awaken(machine, staged, strategy).await
    }

    /// Awakens what was staged and compares it with the baselines; once more from the start when a source was silent.
    pub(super) async fn awaken(
        &self,
        machine: &mut Machine,
        mut staged: Staged,
        strategy: StrategyUsed,
    ) -> Result<Verification, machine::Error> {
        let mut attempt = 1;
        loop {
            let readings = machine.awaken(staged).await?;
            let manner = Manner {
                strategy,
                memory: None,
                attempt,
            };
            let verification = verify(readings, self.golden.manifest(), &manner);
            if verification.verdict != Verdict::Silent || attempt == ATTEMPTS {
                return Ok(verification);
            }
            attempt += 1;
            staged = self.stage(machine).await?;
        }
    }
}
