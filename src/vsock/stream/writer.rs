//! Records to the guest.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::guest::record::{RecordError, RecordHeader, RecordKind};
use crate::vsock::{CloseCause, Error, Origin};

/// The half of a connection that writes.
///
/// It holds what the socket has not taken yet of one record, and nothing else.
pub struct RecordWriter {
    stream: Arc<UnixStream>,
    origin: Origin,
    unsent: Vec<u8>,
    /// Where what is unsent begins.
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

    /// Which connection this is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Sends a record whole; `idle` is the limit for the next byte that the guest takes. Which kinds may be sent is for the
    /// caller to know. If the returned future is dropped, the next record is sent after the rest of this one, if any of this one
    /// was.
    ///
    /// # Errors
    ///
    /// [`Error::RecordMalformed`] before anything was sent; [`Error::PartialFrameTimeout`], or [`Error::Closed`], after which
    /// the connection is of no use for writing.
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

    /// Sends what is unsent.
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

    /// Begins to send a record, of which the socket takes what it can. There must be nothing unsent.
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

    /// Sends what the socket takes; whether nothing is unsent now.
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

    /// How many bytes are unsent.
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
    /// The error that a bad header is.
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
