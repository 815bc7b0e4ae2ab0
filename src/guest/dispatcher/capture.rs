//! [`Output`]: captures the output of a tool up to a limit, until the tool has ended.

use std::fs::File;
use std::io::{self, Read};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::running::{self, Ended, Running};
use crate::guest::frame::LengthError;
use crate::guest::protocol::MAX_OUTPUT;

/// The most bytes that one read of a pipe returns: the capacity of a pipe.
const STEP: usize = 64 * 1024;

/// The captured output of a tool.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
}

/// The captured output of a tool on one stream.
#[derive(Debug, Default)]
pub(super) struct Captured {
    /// The first [`MAX_OUTPUT`] bytes.
    pub(super) kept: Vec<u8>,
    /// The number of bytes after those. They are read and dropped, so that the tool doesn't block.
    pub(super) dropped: u64,
}

impl Captured {
    fn take(&mut self, bytes: &[u8]) {
        let room = MAX_OUTPUT - self.kept.len();
        let (kept, dropped) = bytes.split_at(bytes.len().min(room));
        self.kept.extend_from_slice(kept);
        self.dropped += dropped.len() as u64;
    }

    /// Replaces the tool's output by a text of the guest. The replaced bytes count as dropped.
    pub(super) fn replace(&mut self, text: String) {
        let replaced = std::mem::replace(&mut self.kept, text.into_bytes());
        self.dropped += replaced.len() as u64;
    }

    /// The number of bytes, kept and dropped.
    pub(super) fn total(&self) -> u64 {
        self.kept.len() as u64 + self.dropped
    }
}

impl Output {
    /// Captures the tool's output until the tool has ended, or until it is killed at `deadline`, for which this returns
    /// `None`. Calls `grown` with the standard output that was kept so far, after each wait.
    ///
    /// If the tool ends by itself, the processes that it started run on until the reset. They may hold its pipes open,
    /// which doesn't delay the result. At the deadline the tool and every process that it started are killed.
    ///
    /// If `grown` sends to a host that reads nothing, it blocks, and the tool may run beyond its deadline for as long
    /// as a send may wait.
    pub(super) fn follow(
        &mut self,
        mut tool: Running,
        deadline: Instant,
        mut grown: impl FnMut(&[u8]) -> Result<(), LengthError>,
    ) -> io::Result<Option<Ended>> {
        let in_time = loop {
            if self.take_some(&mut tool, deadline)? {
                break true;
            }
            if Instant::now() >= deadline {
                tool.kill();
                break false;
            }
            grown(&self.stdout.kept).map_err(io::Error::other)?;
        };
        self.stdout.drain(&mut tool.stdout)?;
        self.stderr.drain(&mut tool.stderr)?;
        match in_time {
            true => tool.reap().map(Some),
            false => {
                tool.reap_killed();
                Ok(None)
            }
        }
    }

    /// Waits for output, the tool's end or `deadline`, and reads the output that is there. Returns whether the tool has
    /// ended.
    fn take_some(&mut self, tool: &mut Running, deadline: Instant) -> io::Result<bool> {
        let mut polled = [
            PollFd::from_borrowed_fd(tool.ended(), PollFlags::IN),
            tool.polled(tool.stdout.as_ref(), PollFlags::IN),
            tool.polled(tool.stderr.as_ref(), PollFlags::IN),
        ];
        running::poll(&mut polled, deadline)?;
        let has_ended = !polled[0].revents().is_empty();
        self.stdout.read_some(&mut tool.stdout)?;
        self.stderr.read_some(&mut tool.stderr)?;
        Ok(has_ended)
    }
}

impl Captured {
    /// Reads a pipe once. Returns the number of bytes.
    fn read_some(&mut self, pipe: &mut Option<File>) -> io::Result<usize> {
        let Some(open) = pipe else {
            return Ok(0);
        };
        let mut buffer = [0; STEP];
        match open.read(&mut buffer) {
            Ok(0) => {
                *pipe = None;
                Ok(0)
            }
            Ok(read) => {
                self.take(&buffer[..read]);
                Ok(read)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            },
        }
    }

    /// Reads the bytes that a pipe holds now, and no more.
    fn drain(&mut self, pipe: &mut Option<File>) -> io::Result<()> {
        let mut left = running::held(pipe.as_ref())?;
        while left > 0 {
            match self.read_some(pipe)? {
                0 => break,
                read => left = left.saturating_sub(read as u64),
            }
        }
        Ok(())
    }
}
