//! [`StubSandbox`]: a sandbox without a VM, for unit tests and for the development of an agent where no VM can run.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::running::{OnEnd, RunLimits};
use super::{
    Backend, CollectedRun, Error, Event, OutputStream, Reset, ResetOutcome, ResetReport, RunInput,
    RunReport, RunningTool, Sandbox, SandboxState, StrategyUsed, ToolExecution, ToolInvocation,
    ToolOutcome, ToolOutput, ToolRefusal, ToolSide, ToolSideOutput, TransferOptions,
    TransferReport, VmmApiState, WireState, transfer,
};
use crate::broadcast::{self, Capacity};
use crate::guest::protocol::{MAX_OUTPUT, OpenRun, ToolDispatch};
use crate::limits::TimeLimits;
use crate::machine::Steps;
use crate::mutex::lock;

/// How far a slow subscriber may fall behind.
const EVENTS: Capacity = Capacity {
    count: 64,
    bytes: 1 << 20,
};

/// How many records of standard input wait for a tool that doesn't read. A signal that is sent after them waits too.
const STDIN: usize = 16;

/// A [`Sandbox`] without a VM, for unit tests of a program that uses sandboxes. It isolates nothing.
///
/// Its tools are closures of the test, added by [`with_tool`](Self::with_tool). Two tools are built in:
/// `echo {message}`, and `copy`, which copies its standard input to its standard output. Each tool can be executed, or
/// started with streams.
///
/// Its resets are [`Reset::Scaffold`], never verified. It takes any number of tools between two resets, so it is never
/// in the state [`NeedsReset`](SandboxState::NeedsReset). It keeps pushed files in memory until the next reset. A pull
/// returns the files that were pushed to exactly the same path. Its events are changes of its state, resets, and the
/// beginning and end of tools; a transfer of files has none.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use chv_sandbox::sandbox::{Sandbox, StubSandbox, ToolInvocation, ToolOutcome};
/// use serde_json::json;
///
/// let sandbox = StubSandbox::default().with_tool("count", async |mut run| {
///     let mut lines = 0;
///     while let Some(bytes) = run.read_stdin().await {
///         lines += bytes.iter().filter(|byte| **byte == b'\n').count();
///     }
///     run.stdout(format!("{lines} lines\n")).await;
///     ToolOutcome::Exited { code: 0 }
/// });
/// sandbox.boot().await?;
/// let execution = sandbox.execute_tool(ToolInvocation::new("count", json!({}))).await?;
/// assert_eq!(execution.stdout.text(), "0 lines\n");
/// # Ok(())
/// # }
/// ```
pub struct StubSandbox {
    state: Mutex<SandboxState>,
    events: Arc<broadcast::Sender<Event>>,
    /// The pushed files: a tar stream for each path in the guest.
    files: Mutex<BTreeMap<String, Arc<Vec<u8>>>>,
    tools: HashMap<String, Tool>,
    /// Sends the error with which runs that are under way end, when a reset or a shutdown ends them.
    interrupts: watch::Sender<Error>,
}

type Tool = Arc<dyn Fn(StubRun) -> Pin<Box<dyn Future<Output = ToolOutcome> + Send>> + Send + Sync>;

impl Default for StubSandbox {
    fn default() -> Self {
        let stub = StubSandbox {
            state: Mutex::new(SandboxState::NotBooted),
            events: Arc::new(broadcast::Sender::new(EVENTS)),
            files: Mutex::default(),
            tools: HashMap::new(),
            interrupts: watch::Sender::new(Error::ShutDown),
        };
        stub.with_tool("echo", echo).with_tool("copy", copy)
    }
}

async fn echo(mut run: StubRun) -> ToolOutcome {
    match run.params()["message"].clone() {
        Value::String(message) => {
            run.stdout(format!("{message}\n")).await;
            ToolOutcome::Exited { code: 0 }
        }
        _ => ToolOutcome::Refused {
            reason: "echo takes the parameter \"message\", a string".to_owned(),
        },
    }
}

async fn copy(mut run: StubRun) -> ToolOutcome {
    while let Some(bytes) = run.read_stdin().await {
        run.stdout(bytes).await;
    }
    ToolOutcome::Exited { code: 0 }
}

impl StubSandbox {
    /// Adds a tool, or replaces the tool of this name.
    ///
    /// Each run calls `tool` once and polls its future on a task of its own. The future is dropped when the run is
    /// cancelled, when its caller is gone, and at its deadline.
    #[must_use]
    pub fn with_tool<F>(
        mut self,
        name: impl Into<String>,
        tool: impl Fn(StubRun) -> F + Send + Sync + 'static,
    ) -> StubSandbox
    where
        F: Future<Output = ToolOutcome> + Send + 'static,
    {
        let tool: Tool = Arc::new(move |run| Box::pin(tool(run)));
        self.tools.insert(name.into(), tool);
        self
    }

    fn set(&self, state: SandboxState) {
        let mut current = lock(&self.state);
        if current.wire() != state.wire() {
            current.clone_from(&state);
            self.events.send(Event::State(state));
        }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Vec<u8>>>> {
        lock(&self.files)
    }

    fn check_ready(&self, action: &'static str) -> Result<(), Error> {
        match self.state().wire() {
            WireState::Ready => Ok(()),
            state => Err(Error::NotReady { action, state }),
        }
    }

    fn begin(&self, invocation: ToolInvocation) -> Result<RunningTool, Error> {
        self.events.send(Event::ToolStarted {
            command_id: invocation.command_id.clone(),
            tool: invocation.tool.clone(),
        });
        let terms = RunLimits {
            command_id: invocation.command_id.clone(),
            // `play` keeps the deadline.
            limit: TimeLimits::LONGEST,
            grace: TimeLimits::default().tool_grace,
        };
        let mut interrupts = self.interrupts.subscribe();
        let interrupted = async move {
            match interrupts.changed().await {
                Ok(()) => interrupts.borrow().clone(),
                Err(_) => Error::ShutDown,
            }
        };
        let conclude = self.conclude(invocation.command_id.clone());
        let begun = RunningTool::controlled(&invocation, terms, interrupted, Some(conclude));
        let (running, controller) =
            begun.map_err(|source| Error::ToolRefused(ToolRefusal::NoSockets(Arc::new(source))))?;
        let tool = self.tools.get(&invocation.tool).cloned();
        tokio::spawn(play(tool, invocation, controller));
        Ok(running)
    }

    /// The conclusion of a run: sends the event of its end.
    fn conclude(&self, command_id: String) -> OnEnd {
        let (events, began) = (Arc::clone(&self.events), Instant::now());
        Box::new(move |ended: Result<RunReport, Error>| {
            events.send(Event::ToolEnded {
                command_id,
                result: match &ended {
                    Ok(report) => Ok(report.outcome.clone()),
                    Err(error) => Err(error.clone()),
                },
                took: began.elapsed(),
                evidence: ended.as_ref().ok().map(|report| report.evidence.clone()),
            });
            ended
        })
    }
}

/// Plays a tool until it ends, is cancelled, or reaches its deadline.
async fn play(tool: Option<Tool>, invocation: ToolInvocation, controller: ToolSide) {
    let ToolSide {
        mut input, output, ..
    } = controller;
    let output = Arc::new(tokio::sync::Mutex::new(Some(output)));
    let deadline = invocation.deadline();
    let (stdin, stdin_reader) = mpsc::channel(STDIN);
    let run = StubRun {
        invocation,
        stdin: stdin_reader,
        output: Arc::clone(&output),
    };
    let cancelled = async move {
        let mut stdin = Some(stdin);
        loop {
            match (input.next().await, &stdin) {
                // A tool that doesn't read any more gets no further input: the send fails and the bytes are dropped.
                (Some(RunInput::Stdin(bytes)), Some(stdin)) => drop(stdin.send(bytes).await),
                (Some(RunInput::Stdin(_)), None) => {}
                (Some(RunInput::EndOfStdin), _) => stdin = None,
                (Some(RunInput::Signal(_)), _) => return ToolOutcome::Cancelled,
                // The caller is gone, so no caller gets this outcome.
                (None, _) => return ToolOutcome::Cancelled,
            }
        }
    };
    let outcome = async {
        match tool {
            Some(tool) => tool(run).await,
            None => ToolOutcome::NoSuchTool,
        }
    };
    let outcome = tokio::select! {
        outcome = outcome => outcome,
        outcome = cancelled => outcome,
        () = sleep(deadline) => ToolOutcome::DeadlineExceeded,
    };
    let output = output.lock().await.take();
    if let Some(output) = output {
        // It fails if the caller is gone, who then needs no outcome.
        let _ = output.end(outcome).await;
    }
}

/// One run of a tool of a [`StubSandbox`], as the tool's closure sees it.
pub struct StubRun {
    invocation: ToolInvocation,
    stdin: mpsc::Receiver<Bytes>,
    /// `None` once the run has ended.
    output: Arc<tokio::sync::Mutex<Option<ToolSideOutput>>>,
}

impl StubRun {
    /// The invocation of this run.
    pub fn invocation(&self) -> &ToolInvocation {
        &self.invocation
    }

    /// The tool's parameters.
    pub fn params(&self) -> &Value {
        &self.invocation.params
    }

    /// Waits for the next piece of standard input. Returns `None` at its end, and at once if the invocation has no
    /// standard input.
    pub async fn read_stdin(&mut self) -> Option<Bytes> {
        match self.invocation.stdin {
            super::StdinMode::Piped => self.stdin.recv().await,
            super::StdinMode::None => None,
        }
    }

    /// Writes to standard output. Waits while the caller doesn't read.
    pub async fn stdout(&mut self, bytes: impl AsRef<[u8]>) {
        self.write(OutputStream::Stdout, bytes.as_ref()).await;
    }

    /// Writes to standard error. Waits while the caller doesn't read.
    pub async fn stderr(&mut self, bytes: impl AsRef<[u8]>) {
        self.write(OutputStream::Stderr, bytes.as_ref()).await;
    }

    async fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        if let Some(output) = &mut *self.output.lock().await {
            // It fails if the caller is gone, which ends this run too.
            let _ = output.write(stream, bytes).await;
        }
    }
}

impl fmt::Debug for StubRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StubRun")
            .field("invocation", &self.invocation)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StubSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tools: Vec<&String> = self.tools.keys().collect();
        tools.sort();
        f.debug_struct("StubSandbox")
            .field("state", &self.state())
            .field("tools", &tools)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Sandbox for StubSandbox {
    async fn boot(&self) -> Result<(), Error> {
        self.set(SandboxState::Ready);
        Ok(())
    }

    async fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error> {
        self.check_ready("run a tool")?;
        ToolDispatch::try_from(invocation.clone())?;
        let CollectedRun {
            report,
            stdout,
            mut stderr,
        } = self.begin(invocation)?.collect_output(MAX_OUTPUT).await?;
        // A guest that decided the outcome itself writes its message to `stderr`. The stub does the same.
        match &report.outcome {
            ToolOutcome::NoSuchTool => stderr = ToolOutput::whole("the stub has no such tool\n"),
            ToolOutcome::Refused { reason } | ToolOutcome::GuestFailed { reason } => {
                stderr = ToolOutput::whole(reason.clone());
            }
            _ => {}
        }
        let mut execution = ToolExecution::new(report.outcome, stdout, stderr);
        execution.took = report.took;
        Ok(execution)
    }

    async fn start(&self, invocation: ToolInvocation) -> Result<RunningTool, Error> {
        self.check_ready("run a tool")?;
        OpenRun::try_from(invocation.clone())?;
        self.begin(invocation)
    }

    async fn push(
        &self,
        local: &Path,
        path: &str,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        self.check_ready("take files")?;
        let (report, stream) = transfer::packed(local, options).await?;
        match self.files().entry(path.to_owned()) {
            Entry::Vacant(free) => free.insert(Arc::new(stream)),
            Entry::Occupied(_) => return Err(transfer::refused(path, "is there already")),
        };
        Ok(report)
    }

    async fn pull(
        &self,
        path: &str,
        local: &Path,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        self.check_ready("give files")?;
        let stream = self.files().get(path).cloned();
        let stream = stream.ok_or_else(|| transfer::refused(path, "is not there"))?;
        transfer::extracted(stream, local, options).await
    }

    async fn reset(&self) -> Result<Reset, Error> {
        self.check_ready("be reset")?;
        self.set(SandboxState::Resetting);
        self.interrupts.send_replace(Error::ResetInterrupted);
        self.files().clear();
        let report = ResetReport::unverified(StrategyUsed::Nothing, None, &Steps::start());
        let outcome = ResetOutcome::unverified(VmmApiState::Running, report);
        self.set(SandboxState::Ready);
        self.events.send(Event::Reset(Arc::new(outcome.clone())));
        Ok(Reset::Scaffold(outcome))
    }

    async fn shutdown(&self) {
        self.files().clear();
        self.set(SandboxState::NotBooted);
        self.interrupts.send_replace(Error::ShutDown);
    }

    fn state(&self) -> SandboxState {
        lock(&self.state).clone()
    }

    fn backend(&self) -> Backend {
        Backend::Stub
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
