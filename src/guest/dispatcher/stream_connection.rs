//! [`StreamConnection`]: a connection that belongs to one run with streams or to one transfer of files.
//!
//! The [session](super::session) reads a connection's first frame. If the frame opens a run or a transfer, the session
//! ends: the connection, together with the bytes that were read after the frame, becomes a [`StreamConnection`], which
//! carries records.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::connection::{Connection, SEND_LIMIT};
use super::{MAX_DEADLINE_MS, MAX_STREAMS, ServeError, Shared};
use crate::guest::frame::{FrameError, write_frame};
use crate::guest::protocol::{ErrorEvent, Frame, FrameType, OpenPull, OpenPush, OpenRun, Opened};

const TOO_MANY_STREAMS: &str = "SANDBOX_TOO_MANY_STREAMS";

/// The frame that opens a run or a transfer.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) request: Request,
    /// The frame's body as the host sent it.
    pub(super) body: Vec<u8>,
}

/// The run or transfer that a frame opens.
#[derive(Debug)]
pub(super) enum Request {
    Run(OpenRun),
    Push(OpenPush),
    Pull(OpenPull),
}

impl Request {
    /// The frame's `type`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Request::Run(_) => FrameType::OpenRun.name(),
            Request::Push(_) => FrameType::OpenPush.name(),
            Request::Pull(_) => FrameType::OpenPull.name(),
        }
    }
}

/// A connection of one run or transfer, after its first frame.
///
/// [`Read`] and [`Write`] block. [`Connection`] has methods that don't block, but they skip the bytes that were
/// [received](Self::take_received) together with the first frame.
#[derive(Debug)]
pub(super) struct StreamConnection {
    connection: Arc<Connection>,
    /// The bytes that came together with the first frame.
    received: Vec<u8>,
    /// How many of these bytes were read.
    read: usize,
}

impl StreamConnection {
    pub(super) fn new(connection: Arc<Connection>, received: Vec<u8>) -> StreamConnection {
        StreamConnection {
            connection,
            received,
            read: 0,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Takes the bytes that came together with the first frame and weren't read yet.
    pub(super) fn take_received(&mut self) -> Vec<u8> {
        let mut received = std::mem::take(&mut self.received);
        received.drain(..std::mem::take(&mut self.read));
        received
    }

    /// Sends [`Opened`]: records follow.
    pub(super) fn opened(&self) -> Result<(), FrameError> {
        self.send(&Frame::Opened(Opened {}))
    }

    /// Sends an [`ErrorEvent`]: no records follow.
    pub(super) fn refuse(&self, code: &str, message: String) -> Result<(), FrameError> {
        self.send(&Frame::ErrorEvent(ErrorEvent {
            code: code.to_owned(),
            message,
        }))
    }

    fn send(&self, frame: &Frame) -> Result<(), FrameError> {
        write_frame(&mut self.connection(), frame)
    }
}

impl Read for StreamConnection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut received = &self.received[self.read..];
        if received.is_empty() {
            return self.connection().read(buffer);
        }
        let read = received.read(buffer)?;
        self.read += read;
        Ok(read)
    }
}

impl Write for StreamConnection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.connection().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.connection().flush()
    }
}

impl Shared {
    /// The directory for files as the tools see it, a path below [`root`](Self::root).
    pub(super) fn files_directory(&self) -> &str {
        self.toolbox.files_directory()
    }

    /// Serves the connection of a run or transfer to its end.
    pub(super) fn serve_stream(
        self: &Arc<Self>,
        stream: StreamConnection,
        opening: Opening,
    ) -> Result<(), ServeError> {
        let connection = Arc::clone(&stream.connection);
        let deadline = match &opening.request {
            Request::Run(open) => deadline(open),
            Request::Push(_) | Request::Pull(_) => Instant::now(),
        };
        match StreamSlot::take(&self.streams, MAX_STREAMS) {
            None => {
                let message = format!("{MAX_STREAMS} runs and transfers are open already");
                stream.refuse(TOO_MANY_STREAMS, message)?;
            }
            Some(place) => match opening.request {
                Request::Run(open) => {
                    self.run_with_streams(&open, &opening.body, deadline, stream, place)?
                }
                Request::Push(open) => self.push(stream, &open, place)?,
                Request::Pull(open) => self.pull(stream, &open, place)?,
            },
        }
        connection.linger(deadline.max(Instant::now() + SEND_LIMIT));
        Ok(())
    }
}

/// The deadline of a run that begins now.
fn deadline(open: &OpenRun) -> Instant {
    Instant::now() + Duration::from_millis(open.deadline_ms.min(MAX_DEADLINE_MS))
}

/// One of a limited number of places. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct StreamSlot(Arc<AtomicUsize>);

impl StreamSlot {
    /// Takes a place unless `most` are taken.
    pub(super) fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<StreamSlot> {
        let one_more = |taken| (taken < most).then_some(taken + 1);
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(StreamSlot(Arc::clone(taken)))
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let taken = Arc::new(AtomicUsize::new(0));
        let first = StreamSlot::take(&taken, 2).unwrap();
        let _second = StreamSlot::take(&taken, 2).unwrap();
        assert!(StreamSlot::take(&taken, 2).is_none());
        drop(first);
        assert!(StreamSlot::take(&taken, 2).is_some());
    }
}
