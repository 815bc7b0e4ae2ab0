//! Connections of their own: each belongs to one run with streams or one transfer of files.
//!
//! The [session](super::session) reads a connection's first frame. One that opens a run or a transfer ends the session: the
//! connection, with what was read of it beyond that frame, becomes a [`StreamConnection`], and what follows are records.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::connection::{Connection, SEND_LIMIT};
use super::{MAX_DEADLINE_MS, MAX_STREAMS, ServeError, Shared};
use crate::guest::frame::{FrameError, write_frame};
use crate::guest::protocol::{ErrorEvent, Frame, FrameType, OpenPull, OpenPush, OpenRun, Opened};

const TOO_MANY_STREAMS: &str = "SANDBOX_TOO_MANY_STREAMS";

/// The first frame of a connection of its own.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) request: Request,
    /// The frame's body as the host sent it.
    pub(super) body: Vec<u8>,
}

/// What a connection of its own is for.
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

/// A connection of its own, after its first frame.
///
/// [`Read`] and [`Write`] block; [`Connection`] has the ways that don't, but knows nothing of what was
/// [received](Self::take_received) before.
#[derive(Debug)]
pub(super) struct StreamConnection {
    connection: Arc<Connection>,
    /// What came together with the first frame, until it is read.
    received: Vec<u8>,
    /// How much of it was read.
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

    /// Takes what came together with the first frame and was not read yet.
    pub(super) fn take_received(&mut self) -> Vec<u8> {
        let mut received = std::mem::take(&mut self.received);
        received.drain(..std::mem::take(&mut self.read));
        received
    }

    /// Says that records follow.
    pub(super) fn opened(&self) -> Result<(), FrameError> {
        self.send(&Frame::Opened(Opened {}))
    }

    /// Says why no records follow.
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
    /// The directory that files go into and come out of, as the tools see it: below [`root`](Self::root).
    pub(super) fn files_directory(&self) -> &str {
        self.toolbox.files_directory()
    }

    /// Serves a connection of its own to its end.
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
        match Place::take(&self.streams, MAX_STREAMS) {
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

/// When a run is over that begins now.
fn deadline(open: &OpenRun) -> Instant {
    Instant::now() + Duration::from_millis(open.deadline_ms.min(MAX_DEADLINE_MS))
}

/// One of the few things that may be there at the same time, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place unless `most` are taken.
    pub(super) fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Place> {
        let one_more = |taken| (taken < most).then_some(taken + 1);
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Place(Arc::clone(taken)))
    }
}

impl Drop for Place {
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
        let first = Place::take(&taken, 2).unwrap();
        let _second = Place::take(&taken, 2).unwrap();
        assert!(Place::take(&taken, 2).is_none());
        drop(first);
        assert!(Place::take(&taken, 2).is_some());
    }
}
