//! [`RunningTool`]: a tool that runs, with its streams.
//!
//! ```text
//!            start          the guest's End record, with matching evidence
//!  (nothing) -----> running ----------------------------------------------> ended: a RunReport
//!                     |  |
//!                     |  +-- dropped ----------------------------------------> abandoned
//!                     +-- deadline and grace over, reset, shutdown, ---------> ended: an Error
//!                         the VMM's end, a bad record
//! ```
//!
//! A run has a vsock connection of its own, and the socket makes the back-pressure: if the caller doesn't read, the
//! tool blocks when it writes, while its deadline goes on. Each run has a background task, which ends the run when its
//! time is over or its sandbox is reset or shut down, even if the caller never polls.

mod controller;
mod report;
mod run_state;
mod stdin;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::task::AbortHandle;

use super::{Error, ToolInvocation, ToolOutput};
use crate::guest::protocol::{RunSignal, StdinMode};
use crate::limits::TimeLimits;
use crate::vsock::{OutputStream, RunStream};
use run_state::RunState;

pub use controller::{RunInput, ToolSide, ToolSideInput, ToolSideOutput};
pub use report::{CollectedRun, RunReport, StreamEvidence};
pub use stdin::ToolStdin;

pub(super) use run_state::{OnEnd, RunLimits};

/// A tool that [`Sandbox::start`](super::Sandbox::start) has started.
///
/// [`next`](Self::next), or the [`Stream`] of the same items, returns the tool's output in the order in which the guest
/// read it. [`wait`](Self::wait) and [`collect_output`](Self::collect_output) wait for the tool's end. Dropping a
/// `RunningTool` cancels the tool: the guest kills it with every process that it started, and the sandbox needs a
/// reset.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use chv_sandbox::sandbox::{Sandbox, StubSandbox, ToolInvocation};
/// use serde_json::json;
/// use tokio::io::AsyncWriteExt;
///
/// let sandbox = StubSandbox::default();
/// sandbox.boot().await?;
/// let mut running = sandbox.start(ToolInvocation::new("copy", json!({})).with_stdin()).await?;
/// let mut stdin = running.stdin().expect("the invocation asks for it");
/// stdin.write_all(b"hello\n").await?;
/// drop(stdin);
/// while let Some(chunk) = running.next().await {
///     assert_eq!(&chunk?.bytes[..], b"hello\n");
/// }
/// let report = running.wait().await?;
/// assert!(report.outcome.is_success());
/// # Ok(())
/// # }
/// ```
pub struct RunningTool {
    shared: Arc<RunState>,
    stdin: Option<ToolStdin>,
    task: AbortHandle,
    /// Whether `next` or `wait` has returned the run's end already.
    has_returned_end: bool,
}

/// A piece of a tool's output. `Debug` shows its length, not its content.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputChunk {
    /// The stream that the tool wrote to.
    pub stream: OutputStream,
    /// 1 to 262,144 bytes. A piece ends where the guest's read ended, possibly inside a character. The bytes are a
    /// slice of a larger buffer and keep all of it in memory, so a caller that keeps a few bytes for long should copy
    /// them.
    pub bytes: Bytes,
}

impl RunningTool {
    /// A run on `stream`. Starts the background task of the run on the present runtime.
    pub(super) fn begin(
        stream: RunStream,
        stdin: StdinMode,
        terms: RunLimits,
        interrupted: impl Future<Output = Error> + Send + 'static,
        conclude: Option<OnEnd>,
    ) -> RunningTool {
        let shared = Arc::new(RunState::new(stream.output, stream.input, conclude));
        let task = tokio::spawn(Arc::clone(&shared).keep(terms, interrupted));
        RunningTool {
            stdin: match stdin {
                StdinMode::Piped => Some(ToolStdin::new(shared.input.clone())),
                StdinMode::None => None,
            },
            task: task.abort_handle(),
            has_returned_end: false,
            shared,
        }
    }

    /// Makes a run without a guest, for another implementation of [`Sandbox`](super::Sandbox) or for a test. The
    /// [`ToolSide`] plays the tool. The run has no deadline; the implementation has to keep the invocation's. Must
    /// be called inside a tokio runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use chv_sandbox::sandbox::{OutputStream, RunningTool, ToolInvocation, ToolOutcome};
    ///
    /// let invocation = ToolInvocation::new("greet", serde_json::Value::Null);
    /// let (mut running, mut controller) = RunningTool::with_controller(&invocation)?;
    /// tokio::spawn(async move {
    ///     controller.output.write(OutputStream::Stdout, b"hello\n").await?;
    ///     controller.output.end(ToolOutcome::Exited { code: 0 }).await
    /// });
    /// let done = running.collect_output(1024).await?;
    /// assert_eq!(done.stdout.text(), "hello\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of the operating system if no pair of sockets can be created, for example because too many files are
    /// open; kind [`InvalidInput`](io::ErrorKind::InvalidInput) if `invocation` can't be sent to a guest.
    pub fn with_controller(invocation: &ToolInvocation) -> io::Result<(RunningTool, ToolSide)> {
        let terms = RunLimits {
            command_id: invocation.command_id.clone(),
            limit: Duration::MAX,
            grace: TimeLimits::default().tool_grace,
        };
        Self::controlled(invocation, terms, std::future::pending(), None)
    }

    /// [`with_controller`](Self::with_controller), with time limits, an interruption and a conclusion.
    pub(super) fn controlled(
        invocation: &ToolInvocation,
        terms: RunLimits,
        interrupted: impl Future<Output = Error> + Send + 'static,
        conclude: Option<OnEnd>,
    ) -> io::Result<(RunningTool, ToolSide)> {
        let open = invocation.clone().try_into();
        let open =
            open.map_err(|error: Error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (stream, guest) = RunStream::in_process(&open)?;
        let running = Self::begin(stream, open.stdin, terms, interrupted, conclude);
        let controller = ToolSide::new(guest, &running.shared);
        Ok((running, controller))
    }

    /// Waits for the next piece of output. Returns `None` once the tool has ended; [`wait`](Self::wait) then says how,
    /// and whether output is missing that the image doesn't allow ([`is_cut`](StreamEvidence::is_cut)).
    /// An error is returned once, and `None` after it. If the returned future is dropped, no output is lost.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    pub async fn next(&mut self) -> Option<Result<OutputChunk, Error>> {
        poll_fn(|context| self.poll_chunk(context)).await
    }

    fn poll_chunk(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<OutputChunk, Error>>> {
        if let Some(chunk) = ready!(self.poll_output(context)) {
            return Poll::Ready(Some(Ok(chunk)));
        }
        let has_returned_end = std::mem::replace(&mut self.has_returned_end, true);
        let ended = self.shared.ended().filter(|_| !has_returned_end);
        Poll::Ready(ended.and_then(Result::err).map(Err))
    }

    /// The next output. `None` once the run has ended, which also ends its background task.
    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<Option<OutputChunk>> {
        let output = ready!(self.shared.poll_output(context));
        if output.is_none() {
            self.task.abort();
        }
        Poll::Ready(output)
    }

    /// Takes the tool's standard input. Returns `None` if it was taken before, or if the invocation did not
    /// [ask for it](ToolInvocation::with_stdin). Input and output are independent: either may be used while the other
    /// waits.
    pub fn stdin(&mut self) -> Option<ToolStdin> {
        self.stdin.take()
    }

    /// Sends a signal to the tool and every process that it started. The signal follows the record of standard input
    /// that is being sent. Does nothing once the tool has ended. A tool that ends because of the signal has the outcome
    /// [`Cancelled`](super::ToolOutcome::Cancelled).
    pub fn signal(&self, signal: RunSignal) {
        self.shared.input.signal(signal);
    }

    /// Kills the tool and every process that it started. Returns at once.
    ///
    /// Output that the tool had written can still be read. [`wait`](Self::wait) then returns the outcome
    /// [`Cancelled`](super::ToolOutcome::Cancelled), or the one of a tool that had ended before. If the guest doesn't
    /// answer within [`tool_grace`](TimeLimits::tool_grace), for example because the cancellation waits behind standard
    /// input that the tool doesn't read, `wait` returns an error, the connection is closed, and the sandbox needs a
    /// reset.
    pub fn cancel(&self) {
        self.signal(RunSignal::Kill);
        self.shared.cancelled.notify_one();
    }

    /// Waits for the tool's end and drops its remaining output. Standard input that was not taken is ended first. May
    /// be called again, and then returns the same.
    ///
    /// # Errors
    ///
    /// The sandbox needs a reset after each of these errors:
    ///
    /// - [`Error::ToolTimeout`]: the guest did not report the tool's end within the tool's deadline and
    ///   [`tool_grace`](TimeLimits::tool_grace).
    /// - [`Error::ResetInterrupted`], [`Error::ShutDown`] and [`Error::VmmEnded`]: a reset, a shutdown or the VMM's end
    ///   ended the run.
    /// - [`Error::Channel`]: the run's connection failed, the guest broke the protocol on it, the guest's evidence
    ///   doesn't match what was sent and received, or a cancellation was not answered. It isn't known what the tool
    ///   did.
    pub async fn wait(&mut self) -> Result<RunReport, Error> {
        self.stdin = None;
        while poll_fn(|context| self.poll_output(context)).await.is_some() {}
        self.has_returned_end = true;
        self.report()
    }

    /// Waits for the tool's end and keeps the first `limit` bytes of each stream. Standard input that was not taken is
    /// ended first. Output that [`next`](Self::next) returned before isn't part of the result, and counts as dropped
    /// there.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    pub async fn collect_output(&mut self, limit: usize) -> Result<CollectedRun, Error> {
        self.stdin = None;
        let [mut stdout, mut stderr] = [Vec::new(), Vec::new()];
        while let Some(chunk) = self.next().await {
            let OutputChunk { stream, bytes } = chunk?;
            let kept = match stream {
                OutputStream::Stdout => &mut stdout,
                OutputStream::Stderr => &mut stderr,
            };
            let room = limit - kept.len();
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        let report = self.report()?;
        let evidence = &report.evidence;
        Ok(CollectedRun {
            stdout: ToolOutput::of(stdout, Some(evidence.stdout_total)),
            stderr: ToolOutput::of(stderr, Some(evidence.stderr_total)),
            report,
        })
    }

    /// How the run ended. Called only after the end of its output.
    fn report(&self) -> Result<RunReport, Error> {
        let ended = self.shared.ended();
        ended.expect("the end of the output says that the run has ended")
    }
}

impl Stream for RunningTool {
    type Item = Result<OutputChunk, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_chunk(context)
    }
}

impl Drop for RunningTool {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.abandon();
    }
}

impl fmt::Debug for RunningTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningTool")
            .field("ended", &self.shared.ended())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OutputChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutputChunk { stream, bytes } = self;
        write!(f, "OutputChunk({} bytes of {stream})", bytes.len())
    }
}
