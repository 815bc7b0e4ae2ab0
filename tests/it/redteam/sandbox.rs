//! A sandbox on the stub that reports its resets as verified, and misbehaves as it is told.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use chv_sandbox::broadcast;
use chv_sandbox::redteam::{Moment, StagedLie, Substrate};
use chv_sandbox::sandbox::{
    Backend, CheckSource, Error, Event, FailedReset, Reset, RunningTool, Sandbox, SandboxState,
    StubSandbox, ToolExecution, ToolInvocation, ToolOutcome, TransferOptions, TransferReport,
};

use super::guest::Guest;

/// How a sandbox misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its resets are not verified.
    Unverified,
    /// The reset of this number, from 1, diverges.
    DivergesAt(u64),
    /// The sandbox keeps 2 MiB of each output.
    KeepsTooMuch,
    /// The sandbox gives each command the answer of the one before it, if both have the same id.
    MixesCommands,
    /// The sandbox does not escape control characters in the guest's text.
    ShowsControlCharacters,
    /// It takes tools after a reset that diverged.
    TakesToolsWhenHalted,
    /// The sandbox does not answer a tool whose script has this word.
    AnswersNot(&'static str),
    /// The tools of these numbers, from 1, give no answer.
    Loses(&'static [u64]),
}

pub(super) struct PlayedSandbox {
    stub: StubSandbox,
    fault: Option<Fault>,
    tools: AtomicU64,
    resets: AtomicU64,
    halted: AtomicBool,
    last: std::sync::Mutex<Option<(String, ToolExecution)>>,
}

impl PlayedSandbox {
    pub(super) fn new(guest: Guest) -> PlayedSandbox {
        PlayedSandbox::of(guest.stub())
    }

    pub(super) fn of(stub: StubSandbox) -> PlayedSandbox {
        PlayedSandbox {
            stub,
            fault: None,
            tools: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            halted: AtomicBool::new(false),
            last: std::sync::Mutex::default(),
        }
    }

    pub(super) fn with(self, fault: Fault) -> PlayedSandbox {
        PlayedSandbox {
            fault: Some(fault),
            ..self
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

#[async_trait]
impl Sandbox for PlayedSandbox {
    async fn boot(&self) -> Result<(), Error> {
        self.stub.boot().await
    }

    async fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error> {
        if self.halted.load(Ordering::Relaxed) && !self.has(Fault::TakesToolsWhenHalted) {
            return Err(Error::ShutDown);
        }
        if let Some(Fault::AnswersNot(word)) = self.fault
            && invocation.params.to_string().contains(word)
        {
            return Err(Error::ShutDown);
        }
        let number = self.tools.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(Fault::Loses(numbers)) = self.fault
            && numbers.contains(&number)
        {
            return Err(Error::ShutDown);
        }
        if self.has(Fault::ShowsControlCharacters) && invocation.tool.contains("forged") {
            let reason = invocation.tool.clone();
            let outcome = ToolOutcome::Refused { reason };
            return Ok(ToolExecution::new(outcome, "", ""));
        }
        let id = invocation.command_id.clone();
        let mut execution = self.stub.execute_tool(invocation).await?;
        if self.has(Fault::KeepsTooMuch) {
            execution.stdout = vec![b'x'; 2 << 20].into();
        }
        let mut last = self.last.lock().unwrap();
        let before = last.replace((id.clone(), execution.clone()));
        match before {
            Some((same, before)) if same == id && self.has(Fault::MixesCommands) => Ok(before),
            _ => Ok(execution),
        }
    }

    async fn start(&self, invocation: ToolInvocation) -> Result<RunningTool, Error> {
        self.stub.start(invocation).await
    }

    async fn push(
        &self,
        local: &Path,
        path: &str,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        self.stub.push(local, path, options).await
    }

    async fn pull(
        &self,
        path: &str,
        local: &Path,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        self.stub.pull(path, local, options).await
    }

    async fn reset(&self) -> Result<Reset, Error> {
        let outcome = match self.stub.reset().await? {
            Reset::Verified(outcome) | Reset::Scaffold(outcome) => outcome,
        };
        let number = self.resets.fetch_add(1, Ordering::Relaxed) + 1;
        match self.fault {
            Some(Fault::Unverified) => Ok(Reset::Scaffold(outcome)),
            Some(Fault::DivergesAt(at)) if at == number => {
                self.halted.store(true, Ordering::Relaxed);
                Err(diverged(outcome))
            }
            Some(Fault::TakesToolsWhenHalted) => {
                self.halted.store(true, Ordering::Relaxed);
                Err(diverged(outcome))
            }
            _ => Ok(Reset::Verified(outcome)),
        }
    }

    async fn shutdown(&self) {
        self.stub.shutdown().await;
    }

    fn state(&self) -> SandboxState {
        self.stub.state()
    }

    fn backend(&self) -> Backend {
        self.stub.backend()
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.stub.subscribe()
    }
}

fn diverged(outcome: chv_sandbox::sandbox::ResetOutcome) -> Error {
    Error::ResetDivergence(Arc::new(FailedReset {
        outcome,
        evidence: None,
    }))
}

/// Stages every lie for a sandbox that finds all lies, or none.
pub(super) struct PlayedSubstrate {
    pub(super) finds: bool,
}

#[async_trait]
impl Substrate for PlayedSubstrate {
    async fn stage(&self, source: CheckSource) -> Result<StagedLie, String> {
        let sandbox = PlayedSandbox::new(Guest::honest());
        let sandbox = match self.finds {
            true => sandbox.with(Fault::DivergesAt(1)),
            false => sandbox,
        };
        let what = format!("a lie about {source:?}");
        let sandbox = Arc::new(sandbox);
        Ok(StagedLie::new(
            sandbox,
            Moment::BeforeReset,
            what,
            || Ok(()),
        ))
    }
}

/// Stages lies at this moment. Telling one gives this result, and the sandbox has this fault.
pub(super) struct Telling {
    pub(super) fault: Option<Fault>,
    pub(super) moment: Moment,
    pub(super) told: Result<(), &'static str>,
}

#[async_trait]
impl Substrate for Telling {
    async fn stage(&self, _source: CheckSource) -> Result<StagedLie, String> {
        let sandbox = PlayedSandbox::new(Guest::honest());
        let sandbox = match self.fault {
            Some(fault) => sandbox.with(fault),
            None => sandbox,
        };
        let told = self.told;
        let tell = move || told.map_err(std::io::Error::other);
        Ok(StagedLie::new(
            Arc::new(sandbox),
            self.moment,
            "a lie",
            tell,
        ))
    }
}
