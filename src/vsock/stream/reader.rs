//! [`RecordReader`]: reads records from the guest.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::guest::record::{RECORD_HEADER, RecordHeader, RecordKind};
use crate::vsock::{CloseCause, Error, Origin, Violation};

/// The size of a read before the first record has come, in bytes.
const FIRST_READ: usize = 8 << 10;

/// A body that is shorter than this is copied, in bytes. A slice would keep the whole buffer for as long as the caller
/// keeps the slice.
const WORTH_SHARING: usize = 16 << 10;

/// One record of the guest. `Debug` doesn't show the body's bytes.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The record's kind.
    pub kind: RecordKind,
    /// The record's body. A body of 16 KiB or more is a slice of the read buffer and keeps that buffer, of at most 512
    /// KiB.
    pub body: Bytes,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({} bytes)", self.kind, self.body.len())
    }
}

/// The receiving half of a connection.
///
/// The buffer has room for one record and one read. A bad header is an error as soon as it has come. So the guest can't
/// make this allocate more than the longest record takes.
pub struct RecordReader {
    pub(super) stream: Arc<UnixStream>,
    origin: Origin,
    /// The kinds that the guest may send.
    admitted: &'static [RecordKind],
    buffer: BytesMut,
    /// The length of the last body, in bytes, which is the expected length of the next one.
    usual: usize,
}

impl RecordReader {
    /// A reader that begins with `come`, the bytes that were read after the last frame.
    pub(super) fn new(
        origin: Origin,
        stream: Arc<UnixStream>,
        admitted: &'static [RecordKind],
        come: &[u8],
    ) -> RecordReader {
        RecordReader {
            stream,
            origin,
            admitted,
            buffer: come.into(),
            usual: FIRST_READ,
        }
    }

    /// Identifies this connection in errors.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Waits for the next record. No bytes are lost if the returned future is dropped.
    ///
    /// # Errors
    ///
    /// - [`Error::RecordMalformed`] if the record's kind is unknown or it is shorter than its kind allows
    /// - [`Error::FrameTooLarge`] if it is longer than its kind allows
    /// - [`Error::Protocol`] if a guest may not send this kind of record on this connection
    /// - [`Error::Closed`] if the connection has ended or failed before a last record came
    ///
    /// The connection is unusable after an error.
    pub async fn next(&mut self) -> Result<Record, Error> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Waits for the next record, at most `limit`.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next), and [`Error::PartialFrameTimeout`] if the record hasn't come in full within
    /// `limit`.
    pub async fn next_within(&mut self, limit: Duration) -> Result<Record, Error> {
        match timeout(limit, self.next()).await {
            Ok(next) => next,
            Err(_) => Err(Error::PartialFrameTimeout {
                origin: self.origin.clone(),
                direction: "from the guest",
                done: self.buffer.len(),
                waited: limit,
            }),
        }
    }

    /// As [`next`](Self::next), for use inside another `poll` function.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next).
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Record, Error>> {
        loop {
            if let Some(record) = self.take()? {
                return Poll::Ready(Ok(record));
            }
            self.make_room();
            let read = loop {
                ready!(self.stream.poll_read_ready(context)).map_err(|e| self.failed(e))?;
                match self.stream.try_read_buf(&mut self.buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => break read,
                }
            };
            match read {
                Ok(0) => return Poll::Ready(Err(self.ended())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.failed(error))),
            }
        }
    }

    /// The next record, if it has arrived. Doesn't wait, and reads the socket directly, since the runtime may not have
    /// seen yet that the socket is readable.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next).
    pub(crate) fn next_now(&mut self) -> Result<Option<Record>, Error> {
        loop {
            if let Some(record) = self.take()? {
                return Ok(Some(record));
            }
            match self.read_now() {
                Ok(0) => return Err(self.ended()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Checks, after the record that ends the connection, that the guest has sent no further bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] with [`Violation::AfterEnd`] if it has.
    pub(crate) fn expect_nothing_more(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            // An error is ignored: the run or transfer is over anyway.
            let _ = self.read_now();
        }
        match self.buffer.is_empty() {
            true => Ok(()),
            false => Err(self.broken(Violation::AfterEnd)),
        }
    }

    /// The error for a breach of the protocol on this connection.
    pub(crate) fn broken(&self, source: Violation) -> Error {
        Error::Protocol {
            origin: self.origin.clone(),
            source,
        }
    }

    /// Removes the first record from the buffer, if it is complete.
    fn take(&mut self) -> Result<Option<Record>, Error> {
        let Some(RecordHeader { kind, length }) = self.header()? else {
            return Ok(None);
        };
        let whole = RECORD_HEADER + length;
        if self.buffer.len() < whole {
            return Ok(None);
        }
        self.usual = length;
        let record = self.buffer.split_to(whole);
        let body = match length < WORTH_SHARING {
            true => Bytes::copy_from_slice(&record[RECORD_HEADER..]),
            false => record.freeze().slice(RECORD_HEADER..),
        };
        Ok(Some(Record { kind, body }))
    }

    /// The checked header of the buffer's first record, if it has come.
    fn header(&self) -> Result<Option<RecordHeader>, Error> {
        let Some(&header) = self.buffer.first_chunk::<RECORD_HEADER>() else {
            return Ok(None);
        };
        let header = RecordHeader::decode(header)
            .map_err(|source| Error::of_record(&self.origin, source))?;
        match self.admitted.contains(&header.kind) {
            true => Ok(Some(header)),
            false => {
                let kind = header.kind;
                Err(self.broken(Violation::RecordOutOfPlace { kind }))
            }
        }
    }

    /// Makes room for the rest of the first record, or for a record as long as the last one.
    fn make_room(&mut self) {
        // `take` has reported a bad header before.
        let header = self.header().ok().flatten();
        let length = header.map_or(self.usual, |header| header.length);
        let missing = (RECORD_HEADER + length).saturating_sub(self.buffer.len());
        self.buffer.reserve(missing.max(RECORD_HEADER));
    }

    fn read_now(&mut self) -> io::Result<usize> {
        let mut bytes = [0; FIRST_READ];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&*self.stream, &mut bytes[..]))?;
        self.buffer.extend_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn ended(&self) -> Error {
        Error::Closed {
            origin: self.origin.clone(),
            source: match self.buffer.len() {
                0 => CloseCause::Peer,
                received => CloseCause::PeerInsideFrame { received },
            },
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::Closed {
            origin: self.origin.clone(),
            source: CloseCause::Io(Arc::new(error)),
        }
    }
}

impl fmt::Debug for RecordReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordReader")
            .field("origin", &self.origin)
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}
