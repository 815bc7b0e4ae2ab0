//! Tools that are functions of the dispatcher's own process, for a stand-in for a guest. [`FunctionRun`] is one run.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::running::Ended;
use super::toolbox::Call;

/// A tool that is a function. It gets a [`FunctionRun`] and returns its exit code.
#[derive(Clone)]
pub(super) struct Function(Arc<dyn Fn(&mut FunctionRun) -> u8 + Send + Sync>);

impl Function {
    pub(super) fn new(function: impl Fn(&mut FunctionRun) -> u8 + Send + Sync + 'static) -> Self {
        Function(Arc::new(function))
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

/// One run of a [tool that is a function](super::Toolbox::with_function).
///
/// The streams are pipes: writing blocks until the host reads, and fails once the run is over. The dispatcher can't
/// kill a function. When it ends the run, at the deadline or because the host asked for it, it doesn't wait for the
/// function's return, so the function should check [`is_cancelled`](Self::is_cancelled) from time to time.
#[derive(Debug)]
#[non_exhaustive]
pub struct FunctionRun {
    /// The parameters as the host sent them; no declaration restricts them.
    pub params: Value,
    /// The environment variables that the host and the tools file set.
    pub env: BTreeMap<String, String>,
    /// The directory that the host or the tools file chose. The function's thread isn't in it.
    pub cwd: Option<String>,
    /// When the dispatcher ends the run, if the function hasn't returned by then.
    pub deadline: Instant,
    /// Standard input, which the host writes; at its end at once if the host sends none.
    pub stdin: PipeReader,
    /// Standard output, which the host reads.
    pub stdout: PipeWriter,
    /// Standard error, which the host reads.
    pub stderr: PipeWriter,
    cancelled: Arc<AtomicBool>,
}

impl FunctionRun {
    /// Whether the host has asked the tool to end, or the dispatcher has ended the run.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

/// The dispatcher's ends of a function's pipes.
pub(super) struct Pipes {
    /// Becomes readable when the function returns or panics.
    pub(super) ended: PipeReader,
    pub(super) stdin: Option<PipeWriter>,
    pub(super) stdout: PipeReader,
    pub(super) stderr: PipeReader,
}

/// A function that runs in a thread of its own.
pub(super) struct RunningFunction {
    cancelled: Arc<AtomicBool>,
    exit_code: Receiver<u8>,
}

impl RunningFunction {
    pub(super) fn start(
        function: &Function,
        params: &Value,
        call: &Call,
        deadline: Instant,
    ) -> io::Result<(RunningFunction, Pipes)> {
        let (ended, ending) = pipe()?;
        let (stdout, to_stdout) = pipe()?;
        let (stderr, to_stderr) = pipe()?;
        let (from_stdin, stdin) = pipe()?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut run = FunctionRun {
            params: params.clone(),
            env: call.env.clone(),
            cwd: call.cwd.clone(),
            deadline,
            stdin: from_stdin,
            stdout: to_stdout,
            stderr: to_stderr,
            cancelled: Arc::clone(&cancelled),
        };
        let (returned, exit_code) = sync_channel(1);
        let Function(function) = function.clone();
        thread::Builder::new()
            .name("tool".to_owned())
            .spawn(move || {
                // Dropped last, also if the function panics: once `ended` is readable, the exit code was sent or never
                // comes.
                let _ending = ending;
                let returned = returned;
                let exit_code = function(&mut run);
                drop(run);
                // This fails if the dispatcher has ended the run.
                let _ = returned.send(exit_code);
            })?;
        let pipes = Pipes {
            ended,
            stdin: call.has_stdin.then_some(stdin),
            stdout,
            stderr,
        };
        let running = RunningFunction {
            cancelled,
            exit_code,
        };
        Ok((running, pipes))
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// The exit code that the function returned. If it hasn't returned, the dispatcher has ended the run, and the host
    /// is told that SIGKILL ended the tool.
    pub(super) fn reap(&self) -> io::Result<Ended> {
        match self.exit_code.try_recv() {
            Ok(code) => Ok(Ended::Exited(code)),
            Err(TryRecvError::Empty) => Ok(Ended::Signalled(libc::SIGKILL as u8)),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the function panicked")),
        }
    }
}
