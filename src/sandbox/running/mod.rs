//! A tool that runs, with its streams: [`RunningTool`].
//!
//! ```text
//!            start              End agrees with what crossed
//!  (nothing) -----> running ------------------------------------> ended: a report
//!                     |  |
//!                     |  +-- dropped -----------------------------> abandoned
//!                     +-- deadline and grace, reset, shutdown, ---> ended: an error
//!                         the VMM's end, a bad record
//! ```
//!
//! A run has a connection of its own, so back-pressure is the socket's: a caller that doesn't read stops the tool, whose
//! deadline goes on. A task of its own keeps each run. It ends the run at the end of its time and with its sandbox, also where
//! the caller never polls.

mod controller;
mod report;
mod shared;
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
use shared::Shared;

pub use controller::{RunController, RunInput, RunInputs, RunOutputs};
pub use report::{CollectedRun, RunReport, StreamEvidence};
pub use stdin::ToolStdin;

pub(super) use shared::{Conclude, Terms};

/// A tool that runs, begun with [`Sandbox::start`](super::Sandbox::start).
///
/// What it writes comes from [`next`](Self::next) in the order in which the guest read it, or from the [`Stream`] of the same
/// items. Dropping it cancels the tool: the guest kills all that the tool started, and the sandbox needs a reset.
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
/// let mut running = sandbox.start(ToolInvocation::new("cat", json!({})).with_stdin()).await?;
/// let mut stdin = running.stdin().expect("it was asked for");
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
    shared: Arc<Shared>,
    stdin: Option<ToolStdin>,
    keeper: AbortHandle,
    /// Whether `next` has told how the run ended.
    is_told: bool,
}

/// A piece of what a tool wrote. `Debug` shows how much it is, and none of it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputChunk {
    /// Where the tool wrote it to.
    pub stream: OutputStream,
    /// What it wrote: 1 to 262,144 bytes, cut wherever the guest's read ended, also inside a character. It is a slice of
    /// the buffer that it was read into, and keeps that buffer alive: a caller that keeps few bytes for long copies them.
    pub bytes: Bytes,
}

impl RunningTool {
    /// A run on `stream`, which some task of the present runtime keeps from now on.
    pub(super) fn begin(
        stream: RunStream,
        stdin: StdinMode,
        terms: Terms,
        interrupted: impl Future<Output = Error> + Send + 'static,
        conclude: Option<Conclude>,
    ) -> RunningTool {
        let shared = Arc::new(Shared::new(stream.output, stream.input, conclude));
        let keeper = tokio::spawn(Arc::clone(&shared).keep(terms, interrupted));
        RunningTool {
            stdin: match stdin {
                StdinMode::Piped => Some(ToolStdin::new(shared.input.clone())),
                StdinMode::None => None,
            },
            keeper: keeper.abort_handle(),
            is_told: false,
            shared,
        }
    }

    /// A run for another implementation of [`Sandbox`](super::Sandbox), with the handle by which that one plays the tool. There
    /// is no deadline but the one that the implementation keeps. Must be called inside a tokio runtime.
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
    /// What a pair of sockets can't be made for, such as too many open files; kind `InvalidInput` for an invocation that no
    /// sandbox takes.
    pub fn with_controller(
        invocation: &ToolInvocation,
    ) -> io::Result<(RunningTool, RunController)> {
        let terms = Terms {
            command_id: invocation.command_id.clone(),
            limit: Duration::MAX,
            grace: TimeLimits::default().tool_grace,
        };
        Self::controlled(invocation, terms, std::future::pending(), None)
    }

    /// The same on these terms.
    pub(super) fn controlled(
        invocation: &ToolInvocation,
        terms: Terms,
        interrupted: impl Future<Output = Error> + Send + 'static,
        conclude: Option<Conclude>,
    ) -> io::Result<(RunningTool, RunController)> {
        let open = invocation.clone().try_into();
        let open =
            open.map_err(|error: Error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (stream, guest) = RunStream::in_process(&open)?;
        let running = Self::begin(stream, open.stdin, terms, interrupted, conclude);
        let controller = RunController::new(guest, &running.shared);
        Ok((running, controller))
    }

    /// The next piece of output, as soon as it has come; `None` once the tool has ended, and [`wait`](Self::wait) says how. An
    /// error is given once, and is the end. Nothing is lost if the returned future is dropped.
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
        let is_told = std::mem::replace(&mut self.is_told, true);
        let ended = self.shared.ended().filter(|_| !is_told);
        Poll::Ready(ended.and_then(Result::err).map(Err))
    }

    /// The next output; `None` once it has ended, and then nothing is left to keep.
    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<Option<OutputChunk>> {
        let output = ready!(self.shared.poll_output(context));
        if output.is_none() {
            self.keeper.abort();
        }
        Poll::Ready(output)
    }

    /// The tool's standard input, once; `None` the second time, and where the invocation did not
    /// [ask for it](ToolInvocation::with_stdin). It works while the output isn't read, and the other way round.
    pub fn stdin(&mut self) -> Option<ToolStdin> {
        self.stdin.take()
    }

    /// Sends a signal to the tool and all that it started, after the record of standard input that is being sent. Does nothing
    /// once the tool has ended. A tool that ends because of it is [`Cancelled`](super::ToolOutcome::Cancelled).
    pub fn signal(&self, signal: RunSignal) {
        self.shared.input.signal(signal);
    }

    /// Kills the tool and all that it started. What it had written still comes, and [`wait`](Self::wait) gives
    /// [`Cancelled`](super::ToolOutcome::Cancelled), or how it ended before. A guest that doesn't answer within
    /// [`tool_grace`](TimeLimits::tool_grace), for one since the tool doesn't read a full standard input, is an error, the
    /// connection closes, and the sandbox needs a reset.
    pub fn cancel(&self) {
        self.signal(RunSignal::Kill);
        self.shared.cancelled.notify_one();
    }

    /// Waits for the tool's end, and drops what it still writes. Ends standard input first, if that was not taken. May be called
    /// again.
    ///
    /// # Errors
    ///
    /// - [`Error::ToolTimeout`]: the guest has not told the tool's end within its deadline and the grace.
    /// - [`Error::ResetInterrupted`], [`Error::ShutDown`] and [`Error::VmmEnded`]: a reset, a shutdown or the VMM's end ended it.
    /// - [`Error::Channel`]: its connection failed, the guest broke the protocol on it, its evidence is not that of what
    ///   crossed it, or a cancellation was not answered. What the tool did isn't known.
    ///
    /// The sandbox needs a reset after each of them.
    pub async fn wait(&mut self) -> Result<RunReport, Error> {
        self.stdin = None;
        while poll_fn(|context| self.poll_output(context)).await.is_some() {}
        self.is_told = true;
        self.report()
    }

    /// Waits for the tool's end, and keeps the first `limit` bytes of each stream. Ends standard input first, if that was not
    /// taken. What [`next`](Self::next) has given isn't in it, and counts as dropped.
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

    /// How it ended, which is known.
    fn report(&self) -> Result<RunReport, Error> {
        let ended = self.shared.ended();
        ended.expect("it gives no output any more, so it has ended")
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
        self.keeper.abort();
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
