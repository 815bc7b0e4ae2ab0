//! [`RecordWriter`]: sends records to the guest.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::guest::record::{RecordError, RecordHeader, RecordKind};
use crate::vsock::{CloseCause, Error, Origin};

/// The sending half of a connection.
///
/// It holds only the rest of one record, the bytes that the socket hasn't taken yet.
pub struct RecordWriter {
    stream: Arc<UnixStream>,
    origin: Origin,
    unsent: Vec<u8>,
    /// The index in `unsent` of the first byte that the socket hasn't taken.
    start: usize,
}

impl RecordWriter {
    pub(super) fn new(origin: Origin, stream: Arc<UnixStream>) -> RecordWriter {
        RecordWriter {
            stream,
            origin,
            unsent: Vec::new(),
            start: 0,
        }
    }

    /// Identifies this connection in errors.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Sends a record. `idle` is the limit for the next byte that the socket takes. The caller decides which kinds are
    /// allowed.
    ///
    /// If the returned future is dropped inside the record, the next call sends the rest of it first.
    ///
    /// # Errors
    ///
    /// - [`Error::RecordMalformed`] or [`Error::FrameTooLarge`] if the body is shorter or longer than the kind allows;
    ///   nothing was sent
    /// - [`Error::PartialFrameTimeout`] if the guest reads nothing for `idle`
    /// - [`Error::Closed`] if the connection has ended or failed
    ///
    /// After one of the last two errors no further record can be sent.
    pub async fn send(
        &mut self,
        kind: RecordKind,
        body: &[u8],
        idle: Duration,
    ) -> Result<(), Error> {
        let header = RecordHeader::of(kind, body);
        let header = header.map_err(|source| Error::of_record(&self.origin, source))?;
        self.flush(idle).await?;
        self.until_writable(Instant::now(), idle).await?;
        self.start(header, body).map_err(|e| self.failed(e))?;
        self.flush(idle).await
    }

    /// Sends the rest of the present record.
    async fn flush(&mut self, idle: Duration) -> Result<(), Error> {
        let mut moved = Instant::now();
        let mut left = self.left();
        while !self.advance().map_err(|e| self.failed(e))? {
            if self.left() < left {
                (left, moved) = (self.left(), Instant::now());
            }
            self.until_writable(moved, idle).await?;
        }
        Ok(())
    }

    async fn until_writable(&self, moved: Instant, idle: Duration) -> Result<(), Error> {
        match timeout_at(moved + idle, self.stream.writable()).await {
            Ok(writable) => writable.map_err(|e| self.failed(e)),
            Err(_) => Err(Error::PartialFrameTimeout {
                origin: self.origin.clone(),
                direction: "to the guest",
                done: self.start,
                waited: moved.elapsed(),
            }),
        }
    }

    /// Begins to send a record: writes as much as the socket takes, and keeps the rest. The record before must have
    /// been sent in full.
    pub(crate) fn start(&mut self, header: RecordHeader, body: &[u8]) -> io::Result<()> {
        let header = header.encode();
        let slices = [IoSlice::new(&header), IoSlice::new(body)];
        let written = match self.stream.try_write_vectored(&slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            written => written?,
        };
        self.unsent.extend(&header[written.min(header.len())..]);
        self.unsent
            .extend_from_slice(&body[written.saturating_sub(header.len())..]);
        Ok(())
    }

    /// Sends as much of the rest as the socket takes. Returns whether everything was sent.
    pub(crate) fn advance(&mut self) -> io::Result<bool> {
        while self.left() > 0 {
            match self.stream.try_write(&self.unsent[self.start..]) {
                Ok(written) => self.start += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.unsent.clear();
        self.start = 0;
        Ok(true)
    }

    /// How many bytes of the record are still unsent.
    pub(crate) fn left(&self) -> usize {
        self.unsent.len() - self.start
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::Closed {
            origin: self.origin.clone(),
            source: CloseCause::Io(Arc::new(error)),
        }
    }
}

impl Error {
    /// The error for a bad header of a record.
    pub(super) fn of_record(origin: &Origin, source: RecordError) -> Error {
        let origin = origin.clone();
        match source {
            RecordError::Length { kind, length } if length > *kind.lengths().end() => {
                Error::FrameTooLarge {
                    origin,
                    frame: Some(kind.name()),
                    length: length as u64,
                    limit: *kind.lengths().end() as u64,
                }
            }
            source => Error::RecordMalformed { origin, source },
        }
    }
}

impl fmt::Debug for RecordWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordWriter")
            .field("origin", &self.origin)
            .field("unsent", &self.left())
            .finish_non_exhaustive()
    }
}
