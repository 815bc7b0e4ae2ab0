//! [`RunningTool`]: a tool that runs, with its streams, for programs without an async runtime.

use std::io::{self, Write};

use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use crate::sandbox::{self, CollectedRun, Error, OutputChunk, RunReport, RunSignal};

/// A tool that runs: see [`sandbox::RunningTool`]. It is an iterator of the tool's output. Each step blocks until there
/// is more output, and the iterator ends with the tool. Dropping it cancels the tool.
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
/// let mut running = sandbox.start(ToolInvocation::new("copy", json!({})).with_stdin())?;
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

    /// Takes the tool's standard input, as [`sandbox::RunningTool::stdin`] does. Another thread may write to it.
    /// Doesn't block.
    pub fn stdin(&mut self) -> Option<ToolStdin> {
        let inner = self.inner.stdin()?;
        let runtime = self.runtime;
        Some(ToolStdin { inner, runtime })
    }

    /// Sends a signal to the tool, as [`sandbox::RunningTool::signal`] does. Doesn't block.
    pub fn signal(&self, signal: RunSignal) {
        self.inner.signal(signal);
    }

    /// Kills the tool, as [`sandbox::RunningTool::cancel`] does. Doesn't block.
    pub fn cancel(&self) {
        self.inner.cancel();
    }

    /// Waits for the tool's end, as [`sandbox::RunningTool::wait`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::RunningTool::wait`].
    pub fn wait(&mut self) -> Result<RunReport, Error> {
        self.runtime.block_on(self.inner.wait())
    }

    /// Waits for the tool's end and keeps the first `limit` bytes of each stream, as
    /// [`sandbox::RunningTool::collect_output`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::RunningTool::collect_output`].
    pub fn collect_output(&mut self, limit: usize) -> Result<CollectedRun, Error> {
        self.runtime.block_on(self.inner.collect_output(limit))
    }
}

impl Iterator for RunningTool {
    type Item = Result<OutputChunk, Error>;

    /// Blocks until there is more output: see [`sandbox::RunningTool::next`].
    fn next(&mut self) -> Option<Result<OutputChunk, Error>> {
        self.runtime.block_on(self.inner.next())
    }
}

/// The standard input of a tool that runs: see [`sandbox::ToolStdin`]. Each write blocks while the tool doesn't read
/// and the connection is full. Dropping it ends the input.
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
