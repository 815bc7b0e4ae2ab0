//! Connects a tool's streams to those of this process.

use std::io::{self, IsTerminal};

use chv_sandbox::sandbox::{
    ChvSandbox, OutputStream, RunReport, RunningTool, Sandbox, ToolInvocation,
};
use chv_sandbox::sanitize;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::cli::Failure;

/// Runs the tool to its end, feeding its standard input and printing its output.
pub(super) async fn run(
    sandbox: &ChvSandbox,
    invocation: ToolInvocation,
    raw: bool,
) -> Result<RunReport, Failure> {
    let mut tool = sandbox.start(invocation).await?;
    let stdin = tool.stdin();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A tool may end before it has read all of its input, which is not an error.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut stdin).await;
            let _ = stdin.shutdown().await;
        }
        std::future::pending().await
    };
    tokio::select! {
        report = show(&mut tool, raw) => report,
        never = feed => never,
    }
}

async fn show(tool: &mut RunningTool, raw: bool) -> Result<RunReport, Failure> {
    let mut stdout = Screen::new(tokio::io::stdout(), !raw && io::stdout().is_terminal());
    let mut stderr = Screen::new(tokio::io::stderr(), !raw && io::stderr().is_terminal());
    while let Some(output) = tool.next().await {
        let output = output?;
        let written = match output.stream {
            OutputStream::Stdout => stdout.write(&output.bytes).await,
            OutputStream::Stderr => stderr.write(&output.bytes).await,
        };
        match written {
            Ok(()) => {}
            // The reader has closed the pipe, as `| head` does, so no process would read further output.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => tool.cancel(),
            Err(error) => return Err(format!("the tool's output can't be written: {error}").into()),
        }
    }
    let report = tool.wait().await?;
    stdout.end().await?;
    stderr.end().await?;
    if report.evidence.is_cut {
        eprintln!("warning: the tool's output reached the image's limit, and the rest was dropped");
    }
    Ok(report)
}

/// An output stream of this process. Escapes the control characters in a tool's output if the stream is a terminal.
struct Screen<W> {
    out: W,
    escapes: bool,
    /// The first bytes of a UTF-8 character whose other bytes have not arrived, at most three.
    begun: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Screen<W> {
    fn new(out: W, escapes: bool) -> Screen<W> {
        Screen {
            out,
            escapes,
            begun: Vec::new(),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.escapes {
            true => {
                let text = self.text(bytes);
                self.out.write_all(text.as_bytes()).await?;
            }
            false => self.out.write_all(bytes).await?,
        }
        self.out.flush().await
    }

    /// Returns the complete characters so far as text for a terminal, and keeps an incomplete one.
    fn text(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let unfinished = match std::str::from_utf8(&all) {
            Err(error) if error.error_len().is_none() => all.len() - error.valid_up_to(),
            // An invalid byte earlier in the text hides whether the end is incomplete, so the last chunk is examined.
            Err(_) => {
                let last = all.utf8_chunks().last();
                let invalid = last.map_or(&[][..], |chunk| chunk.invalid());
                match std::str::from_utf8(invalid) {
                    Err(error) if error.error_len().is_none() => invalid.len(),
                    _ => 0,
                }
            }
            Ok(_) => 0,
        };
        self.begun = all.split_off(all.len() - unfinished);
        sanitize::lines(&String::from_utf8_lossy(&all))
    }

    /// Writes the rest of a character that was never completed.
    async fn end(&mut self) -> io::Result<()> {
        let begun = std::mem::take(&mut self.begun);
        let text = String::from_utf8_lossy(&begun);
        let written = self.out.write_all(text.as_bytes()).await;
        match written.and(self.out.flush().await) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(pieces: &[&[u8]], escapes: bool) -> Vec<u8> {
        let mut screen = Screen::new(Vec::new(), escapes);
        for piece in pieces {
            screen.write(piece).await.unwrap();
        }
        screen.end().await.unwrap();
        screen.out
    }

    #[tokio::test]
    async fn a_terminal_gets_no_control_characters() {
        let check = async |pieces: &[&[u8]], expected: &str| {
            assert_eq!(
                String::from_utf8(shown(pieces, true).await).unwrap(),
                expected
            );
        };
        check(&[b"a\tb\r\nc\n"], "a\tb\nc\n").await;
        check(&[b"\x1b[2J\x07"], "\\u{1b}[2J\\u{7}").await;
        check(&["\u{202e}".as_bytes()], "\\u{202e}").await;
        // C1, in one piece and in two.
        check(&[b"\xc2\x9b"], "\\u{9b}").await;
        check(&[b"\xc2", b"\x9b"], "\\u{9b}").await;
        check(&[b"\xe2", b"\x82", b"\xac!"], "€!").await;
        check(&[b"\xff\xe2\x82", b"\xac"], "\u{fffd}€").await;
        check(&[b"x\xe2\x82"], "x\u{fffd}").await;
    }

    #[tokio::test]
    async fn anything_else_gets_the_bytes() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(
            shown(&[&bytes, &bytes], false).await,
            [&bytes[..], &bytes].concat()
        );
    }
}
