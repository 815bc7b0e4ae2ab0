//! A run that keeps what the tool writes, up to a limit, until the tool has ended.

use std::fs::File;
use std::io::{self, Read};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::running::{self, Ended, Running};
use crate::guest::frame::LengthError;
use crate::guest::protocol::MAX_OUTPUT;

/// How much is read of a pipe at once: what it holds.
const STEP: usize = 64 * 1024;

/// What a tool wrote.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
}

/// What a tool wrote to one stream.
#[derive(Debug, Default)]
pub(super) struct Captured {
    /// The first [`MAX_OUTPUT`] bytes.
    pub(super) kept: Vec<u8>,
    /// How many bytes came after them. They are read and dropped, so that the tool doesn't block.
    pub(super) dropped: u64,
}

impl Captured {
    fn take(&mut self, bytes: &[u8]) {
        let room = MAX_OUTPUT - self.kept.len();
        let (kept, dropped) = bytes.split_at(bytes.len().min(room));
        self.kept.extend_from_slice(kept);
        self.dropped += dropped.len() as u64;
    }

    /// Puts the guest's own words in the place of what the tool wrote.
    pub(super) fn replace(&mut self, words: String) {
        let replaced = std::mem::replace(&mut self.kept, words.into_bytes());
        self.dropped += replaced.len() as u64;
    }

    /// How many bytes there were, kept and dropped.
    pub(super) fn total(&self) -> u64 {
        self.kept.len() as u64 + self.dropped
    }
}

impl Output {
    /// Takes the tool's output until it has ended, or is killed at `deadline`; then there is no `Ended`. Tells `grown` of its
    /// standard output whenever there is more of it.
    ///
    /// Processes that a tool leaves behind when it ends by itself go on running until the reset; that they hold
    /// its output open doesn't delay the result. At the deadline everything that the tool started is killed.
    ///
    /// A host that doesn't take what `grown` sends it holds the deadline up, for as long as the connection lets it.
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
                tool.bury();
                Ok(None)
            }
        }
    }

    /// Waits for output, the tool's end, or `deadline`, and takes what there is. True once the tool has ended.
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
    /// Reads a pipe once; returns how many bytes there were.
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

    /// Takes what a pipe holds, and no more.
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
