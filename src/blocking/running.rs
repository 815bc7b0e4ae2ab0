//! A tool that runs, with its streams, for a program without an async runtime.

use std::io::{self, Write};

use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use crate::sandbox::{self, CollectedRun, Error, OutputChunk, RunReport, RunSignal};

/// A tool that runs: see [`sandbox::RunningTool`]. It is an iterator of what the tool writes, each step of which blocks until
/// there is more, and ends with the tool. Dropping it cancels the tool.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::io::Write;
/// use std::sync::Arc;
/// use chv_sandbox::blocking::Sandbox;
/// use chv_sandbox::sandbox::{StubSandbox, ToolInvocation};
/// use serde_json::json;
///
/// let sandbox = Sandbox::of(Arc::new(StubSandbox::default()))?;
/// sandbox.boot()?;
/// let mut running = sandbox.start(ToolInvocation::new("cat", json!({})).with_stdin())?;
/// running.stdin().expect("the invocation asks for it").write_all(b"hello\n")?;
/// for chunk in &mut running {
///     assert_eq!(&chunk?.bytes[..], b"hello\n");
/// }
/// assert!(running.wait()?.outcome.is_success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RunningTool {
    inner: sandbox::RunningTool,
    runtime: &'static Runtime,
}

impl RunningTool {
    pub(super) fn new(inner: sandbox::RunningTool, runtime: &'static Runtime) -> RunningTool {
        RunningTool { inner, runtime }
    }

    /// As [`sandbox::RunningTool::stdin`]. It may go to another thread.
    pub fn stdin(&mut self) -> Option<ToolStdin> {
        let inner = self.inner.stdin()?;
        let runtime = self.runtime;
        Some(ToolStdin { inner, runtime })
    }

    /// As [`sandbox::RunningTool::signal`]. Doesn't block.
    pub fn signal(&self, signal: RunSignal) {
        self.inner.signal(signal);
    }

    /// As [`sandbox::RunningTool::cancel`]. Doesn't block.
    pub fn cancel(&self) {
        self.inner.cancel();
    }

    /// As [`sandbox::RunningTool::wait`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn wait(&mut self) -> Result<RunReport, Error> {
        self.runtime.block_on(self.inner.wait())
    }

    /// As [`sandbox::RunningTool::collect_output`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn collect_output(&mut self, limit: usize) -> Result<CollectedRun, Error> {
        self.runtime.block_on(self.inner.collect_output(limit))
    }
}

impl Iterator for RunningTool {
    type Item = Result<OutputChunk, Error>;

    /// As [`sandbox::RunningTool::next`].
    fn next(&mut self) -> Option<Result<OutputChunk, Error>> {
        self.runtime.block_on(self.inner.next())
    }
}

/// The standard input of a tool that runs: see [`sandbox::ToolStdin`]. Dropping it ends the input.
#[derive(Debug)]
pub struct ToolStdin {
    inner: sandbox::ToolStdin,
    runtime: &'static Runtime,
}

impl Write for ToolStdin {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.runtime.block_on(self.inner.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.runtime.block_on(self.inner.flush())
    }
}
