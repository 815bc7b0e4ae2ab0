//! `reset` of the [`Driver`]: reverts to the golden snapshot, verifies the result, and makes the
//! [`ResetState`](crate::sandbox::ResetState).
//!
//! ```text
//!   fresh     a machine that waits is checked     the VMM that served         staged      resumed,
//!             (identity, golden; a spare's VM,    is killed and has       --> if it was   read,    --> compared with
//!             memory, disks and events)       --> ended                       empty       (once more   the baselines
//!   in place  ------------------------------------------------------------> staged       if silent)
//! ```
//!
//! Everything that can refuse a reset is checked before the VMM that served is killed. After that kill the guest that
//! was to be reverted doesn't run any more: if no other VM can be restored, the sandbox has failed and holds no VM. The
//! readings of the restored VM decide: a source that disagrees halts the sandbox. If a source is silent, the whole
//! revert is made once more (in another VMM process, if this process starts the VMMs); a source that is silent again
//! halts the sandbox.
//!
//! The restore and the readings are in `src/machine/revert.rs`.

use std::path::PathBuf;
use std::sync::Arc;

use super::Driver;
use super::serving_machine::ServingMachine;
use crate::causes::Causes;
use crate::golden::{HeldDisks, vmm_api_state};
use crate::machine::{self, Machine, Reading, Readings, Steps};
use crate::sandbox::reset_report::VerificationContext;
use crate::sandbox::reset_target::{ResetTarget, RevertFailure};
use crate::sandbox::spares::PreparedMachine;
use crate::sandbox::verify::{Verdict, verify};
use crate::sandbox::{
    Error, Event, FailedReset, Reset, ResetOutcome, ResetReport, SandboxState, Strategy,
    StrategyUsed, VmmApiState, VmmUsed, evidence,
};

/// How many reverts a reset makes at most. A second one follows only if a source was silent.
const ATTEMPTS: u32 = 2;

/// Why a boot or a reset has no verified VM.
pub(super) enum Unverified {
    /// The revert was not made.
    NotReverted(RevertFailure),
    /// The revert was made, and a source disagreed or was silent: [`Error::ResetDivergence`] or
    /// [`Error::ResetTimeout`].
    Failed(Error),
}

impl From<RevertFailure> for Unverified {
    fn from(failure: RevertFailure) -> Self {
        Unverified::NotReverted(failure)
    }
}

/// The readings of a VM that was reverted, and the hold of the golden disks that it still reads.
type Reverted = (Readings, Option<HeldDisks>);

impl Driver {
    pub(super) async fn reset(&mut self) -> Result<Reset, Error> {
        let state = self.status.state();
        let has_booted = self.shared_target.is_some() || self.serving.is_some();
        if state.is_halted() || matches!(state, SandboxState::NotBooted) || !has_booted {
            return Err(self.status.not_ready("be reset"));
        }
        let _call = self.calls.change();
        while self.retired.try_join_next().is_some() {}
        if let Some(serving) = &mut self.serving {
            serving.emit_pending(&self.status);
        }
        self.status.set(SandboxState::Resetting);
        let result = match self.target() {
            Some(target) => match self.revert_and_verify(&target).await {
                Ok(outcome) => Ok(Reset::Verified(outcome)),
                Err(Unverified::Failed(error)) => Err(error),
                Err(Unverified::NotReverted(failure)) => Err(failure.into()),
            },
            None => self.reboot_cold().await.map(Reset::Scaffold),
        };
        match &result {
            Ok(reset) => {
                self.enter_service();
                let outcome = Arc::new(reset.outcome().clone());
                self.status.emit(Event::Reset(outcome));
            }
            Err(Error::ResetDivergence(failed) | Error::ResetTimeout(failed)) => {
                self.halt(failed).await;
            }
            Err(error) => {
                let error = error.clone();
                self.status.set(SandboxState::Failed { error });
            }
        }
        result
    }

    /// Makes the sandbox ready: gives the serving machine's channel to the tools.
    pub(super) fn enter_service(&mut self) {
        let serving = self.serving.as_mut().expect("a machine serves");
        serving.listen(&self.status);
        let channel = serving.machine.channel();
        let channel = channel.expect("a guest that was read has a channel");
        self.status.ready(channel.clone());
    }

    /// Reverts to `target` and compares the readings with the baselines. Returns the outcome if all of them agree.
    pub(super) async fn revert_and_verify(
        &mut self,
        target: &Arc<ResetTarget>,
    ) -> Result<ResetOutcome, Unverified> {
        let strategy = self.strategy();
        let mut steps = Steps::start();
        let mut attempt = 1;
        loop {
            let reverted = match strategy {
                Strategy::Fresh => self.revert_fresh(target, &mut steps).await,
                Strategy::InPlace => self.revert_in_place(target, &mut steps).await,
            };
            if let Err(RevertFailure::Machine(_)) = &reverted {
                // A VM that was reverted in part must not run on.
                self.kill_serving(&mut steps).await?;
            }
            let (readings, held) = reverted?;
            let serving = self.serving.as_mut().expect("a machine was reverted");
            let verification = verify(
                readings,
                target.golden().manifest(),
                &VerificationContext {
                    strategy: strategy.into(),
                    vmm: serving.used,
                    memory: target.memory(),
                    layers: serving.machine.vmm().layers(),
                    attempt,
                    older_guest: target.older_guest,
                    steps: &steps,
                },
            );
            let refuse: fn(Arc<FailedReset>) -> Error = match verification.verdict {
                Verdict::Passed => {
                    serving.watch_disks(target, held);
                    return Ok(verification.outcome);
                }
                Verdict::Silent if attempt < ATTEMPTS => {
                    tracing::warn!("a source of the reset gave no answer: reverting once more");
                    self.kill_serving(&mut steps).await?;
                    attempt += 1;
                    continue;
                }
                Verdict::Silent => Error::ResetTimeout,
                Verdict::Diverged => Error::ResetDivergence,
            };
            let failed = self.keep_evidence(verification.outcome).await;
            return Err(Unverified::Failed(refuse(Arc::new(failed))));
        }
    }

    /// Reverts with [`Strategy::Fresh`]: takes a spare or an empty VMM, kills the VMM that served, and resumes the
    /// other VM. If a spare fails to resume, tries the next machine.
    async fn revert_fresh(
        &mut self,
        target: &Arc<ResetTarget>,
        steps: &mut Steps,
    ) -> Result<Reverted, RevertFailure> {
        loop {
            let held = target.ensure().await?;
            let PreparedMachine {
                machine, staged, ..
            } = self.next_machine(target, steps).await?;
            self.kill_serving(steps).await?;
            let used = match staged {
                Some(_) => VmmUsed::Spare,
                None => VmmUsed::New,
            };
            let machine = self.serve_by(machine, used);
            let read = async {
                let staged = match staged {
                    Some(staged) => staged,
                    None => target.stage(machine, steps).await?,
                };
                machine.resume_and_query(staged, steps).await
            };
            match read.await {
                Err(error) if used == VmmUsed::Spare => {
                    self.refuse_spare(error);
                    self.kill_serving(steps).await?;
                }
                read => return Ok((read?, held)),
            }
        }
    }

    /// Takes a spare or an empty machine, and checks it: the VMM that answers is the process that was started, and a
    /// spare's VM is unchanged since it was staged. A spare that fails this check is killed, and the next one is taken.
    /// The VMM that serves is not touched.
    async fn next_machine(
        &mut self,
        target: &Arc<ResetTarget>,
        steps: &mut Steps,
    ) -> Result<PreparedMachine, RevertFailure> {
        loop {
            let shared_target = self
                .shared_target
                .as_ref()
                .expect("the target belongs to a shared target");
            let spares = shared_target.spares.as_ref();
            let spares = spares.expect("a shared target with the strategy `Fresh` has spares");
            let mut next = match spares.take().await? {
                Some(next) => next,
                None => PreparedMachine::new(self.start(target).await?),
            };
            steps.end("take");
            let error = match next.staged.take() {
                None => match next.machine.vmm().prove_identity() {
                    Ok(_) => return Ok(next),
                    Err(error) => machine::Error::NotOurs(error),
                },
                Some(staged) => match target.recheck(&mut next.machine, staged, steps).await {
                    Ok(staged) => {
                        next.staged = Some(staged);
                        return Ok(next);
                    }
                    Err(error) => error,
                },
            };
            self.refuse_spare(error);
            self.retired.spawn(next.end());
        }
    }

    fn refuse_spare(&self, error: machine::Error) {
        let error = Error::ResetFailed(Arc::new(error));
        tracing::warn!(error = %Causes(&error), "a spare failed its check or could not be resumed, and is killed");
        self.status.emit(Event::SpareRefused(error));
    }

    /// Reverts with [`Strategy::InPlace`]: restores into the VMM that served. If that VMM has ended or gives no answer,
    /// and this process started it, a new VMM takes its place.
    async fn revert_in_place(
        &mut self,
        target: &Arc<ResetTarget>,
        steps: &mut Steps,
    ) -> Result<Reverted, RevertFailure> {
        let held = target.ensure().await?;
        if let Some(serving) = self.serving.as_mut().filter(|serving| !serving.has_ended()) {
            let machine = &mut serving.machine;
            let is_ours = machine.vmm().process().is_some();
            match revert(target, machine, steps).await {
                Err(error) if is_ours && error.is_silence_of_vmm() => {
                    let error = Error::ResetFailed(Arc::new(error));
                    tracing::error!(error = %Causes(&error), "the VMM gave no answer: it is killed and replaced");
                    self.kill_serving(steps).await?;
                    self.status.emit(Event::VmmReplaced(error));
                }
                read => {
                    serving.used_again();
                    return Ok((read?, held));
                }
            }
        }
        self.kill_serving(steps).await?;
        let machine = self.start(target).await?;
        let used = match machine.vmm().process() {
            Some(_) => VmmUsed::New,
            None => VmmUsed::Attached,
        };
        let machine = self.serve_by(machine, used);
        Ok((revert(target, machine, steps).await?, held))
    }

    async fn start(&mut self, target: &Arc<ResetTarget>) -> Result<Machine, RevertFailure> {
        let target = Arc::clone(target);
        self.start_machine(async move { target.start().await })
            .await
    }

    fn serve_by(&mut self, machine: Machine, used: VmmUsed) -> &mut Machine {
        &mut self
            .serving
            .insert(ServingMachine::new(machine, used))
            .machine
    }

    /// Kills the VMM that served, if this process started it, and waits until it has ended. No other guest runs before
    /// that. The VMM's files are removed after the caller has its answer.
    async fn kill_serving(&mut self, steps: &mut Steps) -> Result<(), RevertFailure> {
        let Some(serving) = &mut self.serving else {
            return Ok(());
        };
        if serving.machine.vmm().process().is_some() {
            serving.machine.kill().await?;
            serving.emit_pending(&self.status);
            self.killed.extend(self.serving.take());
            steps.end("kill");
        }
        Ok(())
    }

    /// Halts the sandbox: from now on it takes no call but a shutdown.
    async fn halt(&mut self, failed: &Arc<FailedReset>) {
        let failed = Arc::clone(failed);
        let outcome = Arc::new(failed.outcome.clone());
        self.status.set(SandboxState::Halted { failed });
        self.stop_spares().await;
        self.status.emit(Event::Reset(outcome));
    }

    /// Stops a machine whose verification failed, and keeps its evidence. A VMM that this process started is killed,
    /// because a VMM that is only asked to stop may go on writing. A VMM of another program is asked to pause its VM.
    async fn keep_evidence(&mut self, outcome: ResetOutcome) -> FailedReset {
        let serving = self.serving.as_mut().expect("a machine was read");
        serving.listen(&self.status);
        let machine = &mut serving.machine;
        machine.close_channel();
        let stopped = match machine.vmm().process() {
            Some(_) => machine.kill().await,
            None => machine.pause().await,
        };
        if let Err(error) = stopped {
            tracing::warn!(error = %Causes(&error), "the VM that was not verified could not be stopped");
        }
        let evidence = match self.evidence_dir() {
            Some(directory) => {
                let journal = self.status.events().journal();
                let machine = &self.serving.as_ref().expect("a machine was read").machine;
                evidence::store(&directory, machine, &outcome, journal).await
            }
            None => None,
        };
        if let Some(folder) = &evidence {
            self.status.emit(Event::EvidenceKept(folder.clone()));
        }
        let ours = |serving: &mut ServingMachine| serving.machine.vmm().process().is_some();
        self.killed.extend(self.serving.take_if(ours));
        FailedReset { outcome, evidence }
    }

    fn evidence_dir(&self) -> Option<PathBuf> {
        self.settings.config.golden_origin()?.evidence_directory()
    }

    /// The reset of scaffold mode: boots again from the disks as they were given, and verifies nothing.
    async fn reboot_cold(&mut self) -> Result<ResetOutcome, Error> {
        tracing::warn!("scaffold mode: the sandbox is reverted, and nothing is verified");
        let origin = self.settings.config.scaffold_origin();
        let shape = origin
            .expect("a sandbox without a target is in scaffold mode")
            .shape();
        let serving = self.serving.as_mut().expect("the sandbox has booted");
        let mut steps = Steps::start();
        let state = match serving.machine.reboot_cold(&shape, &mut steps).await {
            Ok(state) => state,
            Err(error) => {
                self.kill_serving(&mut steps).await?;
                return Err(Error::ResetFailed(Arc::new(error)));
            }
        };
        let live = match &state {
            Reading::Answered(state) => vmm_api_state(state),
            Reading::Silent(_) => VmmApiState::Error,
        };
        let used = serving.used_again();
        let report = ResetReport::unverified(StrategyUsed::ColdBoot, Some(used), &steps);
        Ok(ResetOutcome::unverified(live, report))
    }
}

/// Restores the snapshot in `machine`, resumes the VM, and reads its sources.
async fn revert(
    target: &ResetTarget,
    machine: &mut Machine,
    steps: &mut Steps,
) -> Result<Readings, machine::Error> {
    let staged = target.stage(machine, steps).await?;
    machine.resume_and_query(staged, steps).await
}
