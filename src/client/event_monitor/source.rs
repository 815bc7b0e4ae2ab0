//! The source of an event monitor's bytes: a pipe or a socket, which tells when it has bytes, or a regular file, which
//! never does.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::fs::SeekFrom;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;
use tokio::time::{Sleep, sleep};

use super::decoder::MAX_EVENT;
use crate::offload;

/// How long to wait at the end of a file before it is looked at again.
const PAUSE: Duration = Duration::from_millis(100);

/// The result of a read.
#[derive(Debug)]
pub(super) enum Read<'a> {
    /// At most [`MAX_EVENT`] bytes.
    Piece(&'a [u8]),
    /// The file was cut: its beginning comes next.
    BeginsAgain,
    /// Nothing follows.
    End,
}

#[derive(Debug)]
pub(super) enum Source {
    /// A pipe, a FIFO or a socket.
    Ready {
        file: pipe::Receiver,
        piece: Box<[u8]>,
    },
    File(Tail),
}

impl Source {
    pub(super) fn new(file: OwnedFd) -> io::Result<Source> {
        let file = File::from(file);
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if kind.is_file() {
            let at = rustix::fs::seek(&file, SeekFrom::Current(0))?;
            return Ok(Source::File(Tail {
                file: Arc::new(file),
                at,
                follows: false,
                piece: Vec::new(),
                step: Step::Begin,
            }));
        }
        rustix::io::ioctl_fionbio(&file, true)?;
        Ok(Source::Ready {
            // A socket is read as a pipe is.
            file: pipe::Receiver::from_owned_fd_unchecked(file.into())?,
            piece: vec![0; MAX_EVENT].into(),
        })
    }

    pub(super) fn follow(&mut self) {
        if let Source::File(tail) = self {
            tail.follows = true;
        }
    }

    /// The next bytes, once there are some. Dropping the wait loses none.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Read<'_>>> {
        match self {
            Source::Ready { file, piece } => poll_ready(file, piece, cx),
            Source::File(tail) => tail.poll_read(cx),
        }
    }
}

/// A FIFO without a writer reads as one that ended. tokio reads nothing before the kernel says that there is something:
/// bytes, or the end of a writer.
fn poll_ready<'a>(
    file: &mut pipe::Receiver,
    piece: &'a mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<Read<'a>>> {
    let mut buffer = ReadBuf::new(piece);
    ready!(Pin::new(file).poll_read(cx, &mut buffer))?;
    let length = buffer.filled().len();
    Poll::Ready(Ok(match length {
        0 => Read::End,
        length => Read::Piece(&piece[..length]),
    }))
}

/// A regular file that is read from a place on.
pub(super) struct Tail {
    file: Arc<File>,
    at: u64,
    follows: bool,
    piece: Vec<u8>,
    step: Step,
}

/// The step that a tail waits for.
enum Step {
    Begin,
    Reading(Pin<Box<dyn Future<Output = io::Result<Found>> + Send>>),
    Pausing(Pin<Box<Sleep>>),
}

/// The content of a file at one place.
enum Found {
    Bytes(Vec<u8>),
    /// The file ends there.
    End,
    /// The file ends before it.
    Cut,
}

impl Tail {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Read<'_>>> {
        loop {
            match &mut self.step {
                Step::Begin => {
                    let (file, at) = (Arc::clone(&self.file), self.at);
                    let read = offload::blocking(move || read_at(&file, at));
                    self.step = Step::Reading(Box::pin(read));
                }
                Step::Pausing(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    self.step = Step::Begin;
                }
                Step::Reading(read) => {
                    let found = ready!(read.as_mut().poll(cx));
                    self.step = Step::Begin;
                    match found? {
                        Found::Bytes(piece) => {
                            self.at += piece.len() as u64;
                            self.piece = piece;
                            return Poll::Ready(Ok(Read::Piece(&self.piece)));
                        }
                        Found::End if !self.follows => return Poll::Ready(Ok(Read::End)),
                        Found::End => self.step = Step::Pausing(Box::pin(sleep(PAUSE))),
                        Found::Cut => {
                            self.at = 0;
                            return Poll::Ready(Ok(Read::BeginsAgain));
                        }
                    }
                }
            }
        }
    }
}

fn read_at(file: &File, at: u64) -> io::Result<Found> {
    let mut piece = vec![0; MAX_EVENT];
    let length = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *piece, at))?;
    if length > 0 {
        piece.truncate(length);
        return Ok(Found::Bytes(piece));
    }
    Ok(match file.metadata()?.len() < at {
        true => Found::Cut,
        false => Found::End,
    })
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("file", &self.file)
            .field("at", &self.at)
            .field("follows", &self.follows)
            .finish_non_exhaustive()
    }
}
