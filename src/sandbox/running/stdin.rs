//! [`ToolStdin`]: the standard input of a tool that runs.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::vsock::RunWriter;

/// The standard input of a tool that runs: see [`RunningTool::stdin`](super::RunningTool::stdin). Shutting it down or
/// dropping it ends the input, after everything that was written before.
///
/// A write waits while the tool doesn't read and its pipe and the connection are full. After the tool has ended, a
/// write fails with the kind [`BrokenPipe`](io::ErrorKind::BrokenPipe). If the tool has closed its standard input, the
/// guest drops what is written.
pub struct ToolStdin {
    input: RunWriter,
}

impl ToolStdin {
    pub(super) fn new(input: RunWriter) -> ToolStdin {
        ToolStdin { input }
    }
}

impl AsyncWrite for ToolStdin {
    /// Takes at most 262,144 bytes in one call.
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.input.poll_stdin(context, bytes)
    }

    /// Waits until the connection has taken everything that was written.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.poll_sent(context)
    }

    /// Ends the input, and waits until the connection has taken it. Succeeds if the tool has ended already.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.end_stdin();
        let _ = ready!(self.input.poll_sent(context));
        Poll::Ready(Ok(()))
    }
}

impl Drop for ToolStdin {
    fn drop(&mut self) {
        self.input.end_stdin();
    }
}

impl fmt::Debug for ToolStdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToolStdin")
    }
}
