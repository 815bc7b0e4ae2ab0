//! [`Attacker`]: makes, uses and resets the sandboxes under attack, and counts dispatches and resets.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::battery::Rounds;
use super::probe_script::ProbeScript;
use super::{Plan, Progress, ResetCounts};
use crate::causes::Causes;
use crate::sandbox::{
    self, CollectedRun, Reset, Sandbox, ToolExecution, ToolInvocation, ToolOutcome,
};
use crate::sanitize;

/// The time limit of a script, with a patience of 1.
const DEADLINE: Duration = Duration::from_secs(30);

/// How many failures of resets are kept, as text.
const MAX_FAILURES: usize = 16;

/// How many bytes are read of a run with streams.
const MAX_STREAM: usize = 1 << 20;

/// Why an attack could not be carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum AttackError {
    #[error("no sandbox could be made: {0}")]
    NoSandbox(String),
    #[error("the sandbox runs no scripts with `sh`: {0}")]
    NoShell(ToolOutcome),
    #[error("the tool gave no answer that counts")]
    Tool(#[source] sandbox::Error),
    #[error("the sandbox was not reset")]
    Reset(#[source] sandbox::Error),
}

/// Carries out the attacks, with one sandbox at a time.
pub(super) struct Attacker {
    pub(super) plan: Arc<Plan>,
    progress: Arc<Progress>,
    /// A random id, which distinguishes the markers of this run from those of another run.
    pub(super) id: String,
    sandbox: Option<Arc<dyn Sandbox>>,
    /// Why no further attack is possible.
    hopeless: Option<AttackError>,
    pub(super) backend: Option<sandbox::Backend>,
    pub(super) sandboxes: u64,
    pub(super) dispatches: u64,
    pub(super) resets: ResetCounts,
    /// The errors of failed resets.
    pub(super) failures: Vec<String>,
    /// The findings of the dispatches for markers, once they were made.
    pub(super) rounds: Option<Rounds>,
}

/// A dispatch and the reset after it.
pub(super) struct Round {
    pub(super) execution: ToolExecution,
    pub(super) reset: Result<(), AttackError>,
}

impl Attacker {
    pub(super) fn new(plan: &Arc<Plan>, progress: &Arc<Progress>) -> Attacker {
        let mut id = Uuid::new_v4().simple().to_string();
        id.truncate(12);
        Attacker {
            plan: Arc::clone(plan),
            progress: Arc::clone(progress),
            id,
            sandbox: None,
            hopeless: None,
            backend: None,
            sandboxes: 0,
            dispatches: 0,
            resets: ResetCounts::default(),
            failures: Vec::new(),
            rounds: None,
        }
    }

    /// Runs a script, without a reset.
    pub(super) async fn dispatch(
        &mut self,
        script: &ProbeScript,
    ) -> Result<ToolExecution, AttackError> {
        let execution = self.invoke(script.invocation()).await?;
        self.check_shell(&execution.outcome)?;
        Ok(execution)
    }

    /// Runs a script, and resets the sandbox even if the script failed.
    pub(super) async fn round(&mut self, script: &ProbeScript) -> Result<Round, AttackError> {
        let execution = match self.dispatch(script).await {
            Ok(execution) => execution,
            Err(trouble) => {
                // The error of the dispatch is more useful than one of the reset that it may cause.
                let _ = self.reset().await;
                return Err(trouble);
            }
        };
        let reset = self.reset().await;
        Ok(Round { execution, reset })
    }

    /// Runs a script with streams, and resets.
    pub(super) async fn stream(
        &mut self,
        script: &ProbeScript,
    ) -> Result<CollectedRun, AttackError> {
        let deadline = self.deadline();
        let sandbox = self.ready().await?;
        self.count_dispatch();
        let run = async {
            let invocation = script.invocation().with_deadline(deadline);
            sandbox
                .start(invocation)
                .await?
                .collect_output(MAX_STREAM)
                .await
        };
        let collected = run.await.map_err(AttackError::Tool);
        let reset = self.reset().await;
        let collected = collected?;
        self.check_shell(&collected.report.outcome)?;
        reset.map(|()| collected)
    }

    /// Sends an invocation, with only its deadline changed.
    pub(super) async fn invoke(
        &mut self,
        invocation: ToolInvocation,
    ) -> Result<ToolExecution, AttackError> {
        let deadline = self.deadline();
        let sandbox = self.ready().await?;
        self.count_dispatch();
        let execution = sandbox.execute_tool(invocation.with_deadline(deadline));
        execution.await.map_err(AttackError::Tool)
    }

    /// Resets the sandbox, if there is one. If the reset fails, the sandbox is shut down.
    pub(super) async fn reset(&mut self) -> Result<(), AttackError> {
        let Some(sandbox) = &self.sandbox else {
            return Ok(());
        };
        match sandbox.reset().await {
            Ok(Reset::Verified(_)) => self.resets.verified += 1,
            Ok(Reset::Scaffold(_)) => self.resets.unverified += 1,
            Err(error) => {
                self.resets.failed += 1;
                if self.failures.len() < MAX_FAILURES {
                    let text = format!("{}: {}", error.code(), Causes(&error));
                    self.failures.push(sanitize::line(&text, 1000));
                }
                self.close().await;
                return Err(AttackError::Reset(error));
            }
        }
        Ok(())
    }

    /// Shuts the sandbox down, if there is one.
    pub(super) async fn close(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.shutdown().await;
        }
    }

    fn deadline(&self) -> Duration {
        DEADLINE.saturating_mul(self.plan.patience)
    }

    fn count_dispatch(&mut self) {
        self.dispatches += 1;
        self.progress.count_dispatch();
    }

    /// Returns a booted sandbox, and makes one if necessary.
    async fn ready(&mut self) -> Result<Arc<dyn Sandbox>, AttackError> {
        if let Some(trouble) = &self.hopeless {
            return Err(trouble.clone());
        }
        if let Some(sandbox) = &self.sandbox {
            return Ok(Arc::clone(sandbox));
        }
        match self.make().await {
            Ok(sandbox) => Ok(sandbox),
            Err(trouble) => {
                self.close().await;
                // If a sandbox has booted before, another one may boot later, so this is not final.
                if self.dispatches == 0 {
                    self.hopeless = Some(trouble.clone());
                }
                Err(trouble)
            }
        }
    }

    async fn make(&mut self) -> Result<Arc<dyn Sandbox>, AttackError> {
        let made = (self.plan.make)().await;
        let sandbox =
            made.map_err(|error| AttackError::NoSandbox(Causes(error.as_ref()).to_string()))?;
        self.sandboxes += 1;
        self.backend = Some(sandbox.backend());
        // Stored before the boot, so that a sandbox whose boot is interrupted is shut down, too.
        self.sandbox = Some(Arc::clone(&sandbox));
        let booted = sandbox.boot().await;
        booted.map_err(|error| AttackError::NoSandbox(Causes(&error).to_string()))?;
        Ok(sandbox)
    }

    /// Fails if the sandbox has no tool `sh`, for this and every later dispatch, because a reset does not add one.
    fn check_shell(&mut self, outcome: &ToolOutcome) -> Result<(), AttackError> {
        match outcome {
            ToolOutcome::NoSuchTool | ToolOutcome::Refused { .. } => {
                let trouble = AttackError::NoShell(outcome.clone());
                self.hopeless = Some(trouble.clone());
                Err(trouble)
            }
            _ => Ok(()),
        }
    }
}
