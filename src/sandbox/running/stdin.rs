//! The standard input of a tool that runs.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::vsock::RunWriter;

/// The standard input of a tool that runs. Shutting it down or dropping it ends the input, after all that was written.
///
/// A write waits while the tool doesn't read and the pipe and the connection are full. After the tool has ended it fails with
/// the kind `BrokenPipe`. What a tool that has closed its input is sent, the guest drops.
pub struct ToolStdin {
    input: RunWriter,
}

impl ToolStdin {
    pub(super) fn new(input: RunWriter) -> ToolStdin {
        ToolStdin { input }
    }
}

impl AsyncWrite for ToolStdin {
    /// Takes at most 262,144 bytes.
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.input.poll_stdin(context, bytes)
    }

    /// Waits until the connection has taken all that was written.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.poll_sent(context)
    }

    /// Waits for it, too. A tool that has ended needs no end of its input, so that is no error.
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
