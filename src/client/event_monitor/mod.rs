//! The events of any VMM, read from its event monitor.
//!
//! A VMM that is started with `--event-monitor path=P` or `--event-monitor fd=N` writes an event for each step of its
//! VM. [`EventMonitor`] reads them as a stream, whatever started the VMM.

mod decoder;
mod event;
mod source;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use rustix::fs::OFlags;

pub(crate) use decoder::{Decoder, LeftOut};
pub use event::MonitorEvent;

use decoder::MAX_EVENT;
use source::{Read, Source};

/// How many pieces without an event are read before other tasks have their turn.
const PIECES_A_TURN: usize = 16;

/// A [`Stream`] of the events that a VMM writes to its event monitor.
///
/// - Of a FIFO, a pipe or a socket, the stream waits for a writer and for each event, and ends when the last writer has
///   closed.
/// - Of a regular file, the stream gives the events that are there, and ends. With [`follow`](EventMonitor::follow) it
///   waits at the end for more, and never ends.
///
/// Events are hints, never state. A VMM never waits for a reader: it drops or tears events that its pipe doesn't take.
/// So read steadily, and ask [`Client::vm_info`](super::Client::vm_info) for the state.
///
/// # Errors in the stream
///
/// [`EventMonitorError::NotAnEvent`] and [`EventMonitorError::TooLong`] tell of bytes that were left out; the stream
/// goes on with the next event. After any other error it ends.
///
/// # Memory
///
/// The stream reads only when it is polled, and holds less than 128 KiB, whatever the VMM writes. An event has at most
/// 16 KiB.
///
/// # Cancel safety
///
/// Dropping a future that waits for the next item loses no event.
///
/// ```no_run
/// use chv_sandbox::client::EventMonitor;
/// use futures_util::StreamExt;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // mkfifo /run/vmm/events
/// let mut events = EventMonitor::open("/run/vmm/events")?;
/// // cloud-hypervisor --api-socket /run/vmm/api.sock --event-monitor path=/run/vmm/events
/// while let Some(event) = events.next().await {
///     match event {
///         Ok(event) => println!("{:?} {} {}", event.timestamp, event.source, event.event),
///         Err(error) if error.is_final() => return Err(error.into()),
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a stream reads nothing unless it is polled"]
pub struct EventMonitor {
    name: PathBuf,
    source: Source,
    decoder: Decoder,
    has_ended: bool,
}

/// The event monitor couldn't be opened or read, or bytes that it has are no event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventMonitorError {
    /// The monitor can't be opened, or is of a kind that can't be waited for, such as a directory.
    #[error("failed to open the event monitor {}", .monitor.display())]
    Open {
        /// The path. Of an open file, the kernel's name for it.
        monitor: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Reading failed. The stream ends.
    #[error("failed to read the event monitor {}", .monitor.display())]
    Read {
        /// The path. Of an open file, the kernel's name for it.
        monitor: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// These bytes are no event: the VMM tore it, or another program writes there. They were left out.
    #[error("{length} bytes on the event monitor {} are no event: {reason}", .monitor.display())]
    NotAnEvent {
        /// The path. Of an open file, the kernel's name for it.
        monitor: PathBuf,
        /// In bytes.
        length: usize,
        /// The parser's message, made a [line](crate::sanitize::line) of at most 200 characters.
        reason: String,
    },
    /// An event is longer than any that a VMM writes. It was left out.
    #[error("an event on the event monitor {} is longer than {limit} bytes", .monitor.display())]
    TooLong {
        /// The path. Of an open file, the kernel's name for it.
        monitor: PathBuf,
        /// In bytes.
        limit: usize,
    },
}

impl EventMonitorError {
    /// Whether no event follows. False for the errors that tell of bytes which were left out.
    pub fn is_final(&self) -> bool {
        match self {
            EventMonitorError::Open { .. } | EventMonitorError::Read { .. } => true,
            EventMonitorError::NotAnEvent { .. } | EventMonitorError::TooLong { .. } => false,
        }
    }
}

impl EventMonitor {
    /// The event monitor at `path`: what the VMM is given as `--event-monitor path=…`. It has to exist. A FIFO can be
    /// opened before the VMM is started, and should be: a VMM waits for a reader when it opens a FIFO.
    ///
    /// # Errors
    ///
    /// [`EventMonitorError::Open`] when it can't be opened, or can't be waited for.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O, unless it is a regular file.
    pub fn open(path: impl AsRef<Path>) -> Result<EventMonitor, EventMonitorError> {
        let path = path.as_ref();
        // Opening a FIFO without this waits for a writer.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .and_then(|file| Source::new(file.into()));
        EventMonitor::of(path.to_owned(), opened)
    }

    /// The event monitor that is open already: the reading end of a pipe whose writing end the VMM was given as
    /// `--event-monitor fd=…`, a socket, or a file. A regular file is read from its current position.
    ///
    /// A pipe or a socket becomes non-blocking, for every process that shares the open file.
    ///
    /// # Errors
    ///
    /// [`EventMonitorError::Open`] when it can't be waited for.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O, unless it is a regular file.
    pub fn from_file(file: impl Into<OwnedFd>) -> Result<EventMonitor, EventMonitorError> {
        let file = file.into();
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let name = fs::read_link(&link).unwrap_or_else(|_| link.into());
        EventMonitor::of(name, Source::new(file))
    }

    fn of(name: PathBuf, source: io::Result<Source>) -> Result<EventMonitor, EventMonitorError> {
        match source {
            Ok(source) => Ok(EventMonitor {
                name,
                source,
                decoder: Decoder::default(),
                has_ended: false,
            }),
            Err(source) => Err(EventMonitorError::Open {
                monitor: name,
                source,
            }),
        }
    }

    /// Waits at the end of a regular file for further events, and looks for them ten times a second. A file that has
    /// become shorter is read from its beginning. Changes nothing for a pipe or a socket.
    pub fn follow(mut self) -> EventMonitor {
        self.source.follow();
        self
    }

    fn error(&self, left_out: LeftOut) -> EventMonitorError {
        let monitor = self.name.clone();
        match left_out {
            LeftOut::TooLong => EventMonitorError::TooLong {
                monitor,
                limit: MAX_EVENT,
            },
            LeftOut::NotAnEvent { length, reason } => EventMonitorError::NotAnEvent {
                monitor,
                length,
                reason,
            },
        }
    }
}

impl Stream for EventMonitor {
    type Item = Result<MonitorEvent, EventMonitorError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        for _ in 0..PIECES_A_TURN {
            if let Some(event) = this.decoder.next() {
                return Poll::Ready(Some(event.map_err(|left_out| this.error(left_out))));
            }
            if this.has_ended {
                return Poll::Ready(None);
            }
            match ready!(this.source.poll_read(cx)) {
                Ok(Read::Piece(piece)) => this.decoder.feed(piece),
                Ok(Read::BeginsAgain) => this.decoder = Decoder::default(),
                Ok(Read::End) => {
                    this.has_ended = true;
                    let last = this.decoder.finish();
                    let last = last.map(|event| event.map_err(|left_out| this.error(left_out)));
                    return Poll::Ready(last);
                }
                Err(source) => {
                    this.has_ended = true;
                    let monitor = this.name.clone();
                    let error = EventMonitorError::Read { monitor, source };
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        // A writer that never stops and never completes an event must not keep this thread.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
