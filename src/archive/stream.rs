//! Buffers for the tar stream that compute its digest: [`Sink`] for writing, [`Source`] for reading.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use super::ArchiveError;
use crate::digest::Digest;

/// The most bytes that are written or digested at once: 256 KiB.
pub(crate) const CHUNK: usize = 256 << 10;

/// The least bytes of a file that are read at once, unless fewer are left.
const LEAST: usize = 64 << 10;

/// The writing end of a tar stream.
pub(super) struct Sink<W> {
    out: W,
    digest: Sha256,
    buffer: Vec<u8>,
    filled: usize,
}

impl<W: Write> Sink<W> {
    pub(super) fn new(out: W) -> Sink<W> {
        Sink {
            out,
            digest: Sha256::new(),
            buffer: vec![0; CHUNK],
            filled: 0,
        }
    }

    /// A part of the buffer for the next bytes: `wanted` bytes, or fewer, but at least [`LEAST`]. The caller writes
    /// bytes there and then [takes](Self::take) them.
    pub(super) fn room(&mut self, wanted: u64) -> Result<&mut [u8], ArchiveError> {
        if ((CHUNK - self.filled) as u64) < wanted.min(LEAST as u64) {
            self.flush()?;
        }
        let room = &mut self.buffer[self.filled..];
        let length = usize::try_from(wanted).map_or(room.len(), |wanted| wanted.min(room.len()));
        Ok(&mut room[..length])
    }

    /// Appends the first `bytes` bytes of the last room to the stream, and returns them.
    pub(super) fn take(&mut self, bytes: usize) -> &[u8] {
        let taken = &self.buffer[self.filled..][..bytes];
        self.filled += bytes;
        taken
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len() as u64)?;
            let length = room.len();
            room.copy_from_slice(&bytes[..length]);
            self.take(length);
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ArchiveError> {
        let bytes = &self.buffer[..self.filled];
        self.digest.update(bytes);
        self.out.write_all(bytes).map_err(broken_off)?;
        self.filled = 0;
        Ok(())
    }

    /// Writes the rest of the buffer. Returns the digest of the whole stream.
    pub(super) fn finish(mut self) -> Result<Digest, ArchiveError> {
        self.flush()?;
        self.out.flush().map_err(broken_off)?;
        Ok(self.digest.finalize().into())
    }
}

/// The reading end of a tar stream.
pub(super) struct Source<R> {
    input: R,
    digest: Sha256,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R) -> Source<R> {
        Source {
            input,
            digest: Sha256::new(),
            buffer: vec![0; CHUNK],
            start: 0,
            end: 0,
        }
    }

    /// The next bytes of the stream: at least one, at most `wanted`.
    pub(super) fn some(&mut self, wanted: u64) -> Result<&[u8], ArchiveError> {
        if self.start == self.end && !self.fill()? {
            return Err(broken_off(io::ErrorKind::UnexpectedEof.into()));
        }
        let there = &self.buffer[self.start..self.end];
        let length = usize::try_from(wanted).map_or(there.len(), |wanted| wanted.min(there.len()));
        self.start += length;
        Ok(&there[..length])
    }

    pub(super) fn exactly(&mut self, mut into: &mut [u8]) -> Result<(), ArchiveError> {
        while !into.is_empty() {
            let some = self.some(into.len() as u64)?;
            let (now, later) = into.split_at_mut(some.len());
            now.copy_from_slice(some);
            into = later;
        }
        Ok(())
    }

    /// Reads once. Returns false at the end of the input.
    fn fill(&mut self) -> Result<bool, ArchiveError> {
        loop {
            match self.input.read(&mut self.buffer) {
                Ok(read) => {
                    (self.start, self.end) = (0, read);
                    self.digest.update(&self.buffer[..read]);
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken_off(error)),
            }
        }
    }

    /// Checks that no further bytes come. Returns the digest of the whole stream.
    pub(super) fn finish(mut self) -> Result<Digest, ArchiveError> {
        if self.start < self.end || self.fill()? {
            return Err(ArchiveError::damaged("something follows the archive's end"));
        }
        Ok(self.digest.finalize().into())
    }
}

fn broken_off(source: io::Error) -> ArchiveError {
    ArchiveError::Truncated { source }
}
