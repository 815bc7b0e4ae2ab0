//! Tools that are functions of this process, for the stand-in of a guest.

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

/// A tool that is a function: it gets its run and returns its exit code.
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
/// Its streams are pipes: writing waits for the host to read, and fails once the run is over. A dispatcher that killed the run
/// does not wait for the return of the function.
#[derive(Debug)]
#[non_exhaustive]
pub struct FunctionRun {
    /// What the host sent, as it came.
    pub params: Value,
    /// The environment variables that the host set.
    pub env: BTreeMap<String, String>,
    /// The directory that the host chose.
    pub cwd: Option<String>,
    /// When the run is over, whatever the function does.
    pub deadline: Instant,
    /// What the host writes; empty where it writes nothing.
    pub stdin: PipeReader,
    /// What the host reads as standard output.
    pub stdout: PipeWriter,
    /// What the host reads as standard error.
    pub stderr: PipeWriter,
    cancelled: Arc<AtomicBool>,
}

impl FunctionRun {
    /// Whether the host has asked the tool to end, or the run is over.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

/// The dispatcher's ends of a function's pipes.
pub(super) struct Pipes {
    /// Can be read once the function has returned.
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
                // Dropped last, also when the function panics: then no exit code comes any more.
                let _ending = ending;
                let returned = returned;
                let exit_code = function(&mut run);
                drop(run);
                // The dispatcher doesn't wait for that of a run that is over.
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

    /// What the function returned. One that hasn't was killed, as far as the host is concerned.
    pub(super) fn reap(&self) -> io::Result<Ended> {
        match self.exit_code.try_recv() {
            Ok(code) => Ok(Ended::Exited(code)),
            Err(TryRecvError::Empty) => Ok(Ended::Signalled(libc::SIGKILL as u8)),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the function panicked")),
        }
    }
}
