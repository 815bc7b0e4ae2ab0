//! A pipe for the pieces of a tar stream, between the thread that packs or extracts and the task that uses the
//! connection.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// How many pieces the pipe holds.
const PIECES: usize = 2;

/// Makes a pipe. Each end notices when the other is dropped.
pub(super) fn pipe() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(PIECES)
}

/// The writing end for a thread that may block. Each write is one piece.
pub(super) struct PieceWriter(pub(super) mpsc::Sender<Bytes>);

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        let sent = self.0.blocking_send(piece);
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reading end for a thread that may block. It reaches its end when the other end is dropped.
pub(super) struct PieceReader {
    pieces: mpsc::Receiver<Bytes>,
    present: Bytes,
}

impl PieceReader {
    pub(super) fn new(pieces: mpsc::Receiver<Bytes>) -> PieceReader {
        PieceReader {
            pieces,
            present: Bytes::new(),
        }
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.present = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.present.len());
        self.present.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
