//! What the tool hasn't read yet of what the host sent.

use std::fs::File;
use std::io::{self, Write};

use crate::causes::Causes;
use crate::guest::record::MAX_RECORD;

/// The tool's standard input.
///
/// It goes into the tool's pipe. What the pipe has no room for is kept, and further records are taken while that is less than
/// one record may hold: so at most two records are kept, and a signal gets past a standard input that nothing reads, unless the
/// host has sent more than that.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Whether the host may send more.
    pub(super) is_open: bool,
    kept: Vec<u8>,
    /// How much of `kept` is in the pipe.
    written: usize,
}

impl Input {
    /// Whether there is room for one more record.
    pub(super) fn has_room(&self) -> bool {
        self.kept.len() - self.written < MAX_RECORD
    }

    /// Whether something waits for room in the pipe.
    pub(super) fn is_waiting(&self) -> bool {
        self.written < self.kept.len()
    }

    /// Takes what the host sent. It is dropped where there is no pipe any more: the tool has closed it.
    pub(super) fn take(&mut self, bytes: &[u8], pipe: &mut Option<File>) {
        let written = match self.is_waiting() {
            true => 0,
            false => write(bytes, pipe),
        };
        if pipe.is_some() {
            self.kept.drain(..self.written);
            self.written = 0;
            self.kept.extend_from_slice(&bytes[written..]);
        }
    }

    /// The host sends no more.
    pub(super) fn end(&mut self, pipe: &mut Option<File>) {
        self.is_open = false;
        self.pass_on(pipe);
    }

    /// Writes what is kept as far as the pipe has room, and closes it after the last of it.
    pub(super) fn pass_on(&mut self, pipe: &mut Option<File>) {
        if self.is_waiting() {
            self.written += write(&self.kept[self.written..], pipe);
        }
        if pipe.is_none() || !self.is_waiting() {
            self.kept.clear();
            self.written = 0;
        }
        if !self.is_open && !self.is_waiting() {
            *pipe = None;
        }
    }
}

/// Writes what the pipe has room for, and closes it when the tool has closed its end.
fn write(mut bytes: &[u8], pipe: &mut Option<File>) -> usize {
    let mut written = 0;
    while let Some(open) = pipe
        && !bytes.is_empty()
    {
        match open.write(bytes) {
            Ok(count) => {
                written += count;
                bytes = &bytes[count..];
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => break,
                io::ErrorKind::Interrupted => {}
                kind => {
                    if kind != io::ErrorKind::BrokenPipe {
                        tracing::warn!(error = %Causes(&error), "a tool's standard input failed");
                    }
                    *pipe = None;
                }
            },
        }
    }
    written
}
