//! Reset: revert, read, compare; halt on the first doubt.

use std::path::PathBuf;
use std::sync::Arc;

use super::reset_target::ResetTarget;
use super::reset_target::Reverted;
use super::{Running, Shared};
use crate::causes::Causes;
use crate::golden::{HeldDisks, vmm_api_state};
use crate::machine::{Machine, Reading};
use crate::sandbox::verify::Verdict;
use crate::sandbox::{
    Error, Event, FailedReset, Reset, ResetOutcome, ResetReport, SandboxState, Strategy,
    StrategyUsed, VmmApiState, evidence,
};

impl Shared {
    pub(super) async fn reset(
        self: &Arc<Self>,
        slot: &mut Option<Running>,
    ) -> Result<Reset, Error> {
        let running = match slot {
            Some(running) if !self.status.is_halted() => running,
            _ => return Err(self.status.not_ready("be reset")),
        };
        self.status.begin(SandboxState::Resetting);
        let result = match running.target.clone() {
            Some(target) => self.reset_to(running, &target).await,
            None => self
                .reset_scaffold(running)
                .await
                .map(|reset| (reset, None)),
        };
        match &result {
            Ok((reset, disks)) => {
                self.adopt(running, *disks);
                self.status
                    .tell(Event::Reset(Arc::new(reset.outcome().clone())));
            }
            Err(_) if self.status.is_halted() => {}
            Err(_) => self.status.failed(),
        }
        result.map(|(reset, _)| reset)
    }

    async fn reset_to(
        self: &Arc<Self>,
        running: &mut Running,
        target: &ResetTarget,
    ) -> Result<(Reset, Option<HeldDisks>), Error> {
        let Reverted {
            verification,
            disks,
        } = match self.config.strategy {
            Strategy::InPlace => self.revert_in_place(running, target).await?,
            Strategy::Respawn | Strategy::Standby(_) => self.replace(running, target).await?,
        };
        let outcome = verification.outcome;
        let halt: fn(Box<FailedReset>) -> Error = match verification.verdict {
            Verdict::Passed => return Ok((Reset::Verified(outcome), disks)),
            Verdict::Silent => Error::ResetTimeout,
            Verdict::Diverged => Error::ResetDivergence,
        };
        Err(halt(self.halt(&mut running.machine, outcome).await))
    }

    /// From here on the sandbox takes nothing but a shutdown.
    async fn halt(
        self: &Arc<Self>,
        machine: &mut Machine,
        outcome: ResetOutcome,
    ) -> Box<FailedReset> {
        self.status.halt();
        self.spares.stop(&self.retired).await;
        let evidence = self.keep_evidence(machine, &outcome).await;
        self.status.tell(Event::Reset(Arc::new(outcome.clone())));
        Box::new(FailedReset { outcome, evidence })
    }

    /// Stops a machine that isn't what it should be, and keeps what shows it: a guest that went on could change it.
    pub(super) async fn keep_evidence(
        self: &Arc<Self>,
        machine: &mut Machine,
        outcome: &ResetOutcome,
    ) -> Option<PathBuf> {
        if let Some(channel) = machine.channel() {
            self.watch_channel(channel);
        }
        machine.close_channel();
        if let Err(error) = machine.pause().await {
            tracing::warn!(error = %Causes(&error), "the VM that diverged could not be paused");
        }
        let beside = || {
            let golden = self.config.golden.as_deref()?;
            Some(golden.parent()?.join("evidence"))
        };
        let directory = self.config.evidence_dir.clone().or_else(beside)?;
        let journal = self.status.journal();
        let kept = evidence::keep(&directory, machine, outcome, journal).await;
        if let Some(folder) = &kept {
            self.status.tell(Event::EvidenceKept(folder.clone()));
        }
        kept
    }

    async fn reset_scaffold(&self, running: &mut Running) -> Result<Reset, Error> {
        tracing::warn!("scaffold mode: the sandbox is reverted, and nothing is verified");
        let shape = self
            .config
            .shape()
            .expect("checked: scaffold mode has a kernel");
        let rebooted = running.machine.reboot_cold(&shape).await;
        let (steps, state) = rebooted.map_err(Error::ResetFailed)?;
        let live = match &state {
            Reading::Answered(state) => vmm_api_state(state),
            Reading::Silent(_) => VmmApiState::Error,
        };
        let report = ResetReport::unverified(StrategyUsed::ColdBoot, steps);
        Ok(Reset::Scaffold(ResetOutcome::unverified(live, report)))
    }
}
