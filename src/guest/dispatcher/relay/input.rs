//! [`Input`]: standard input that the host has sent and the tool hasn't read yet.

use std::fs::File;
use std::io::{self, Write};

use crate::causes::Causes;
use crate::guest::record::MAX_RECORD;

/// The tool's standard input.
///
/// Bytes are written to the tool's pipe. Bytes for which the pipe has no room are kept. While fewer than [`MAX_RECORD`]
/// bytes are kept, further records are processed. So fewer bytes than two records hold are kept at any time, and the
/// host's signals reach a tool that doesn't read its standard input, as long as the host sends no more input than that.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Whether the host may send more.
    pub(super) is_open: bool,
    kept: Vec<u8>,
    /// How many bytes of `kept` were written to the pipe.
    written: usize,
}

impl Input {
    /// Whether one more record may be processed.
    pub(super) fn has_room(&self) -> bool {
        self.kept.len() - self.written < MAX_RECORD
    }

    /// Whether bytes wait for room in the pipe.
    pub(super) fn is_waiting(&self) -> bool {
        self.written < self.kept.len()
    }

    /// Takes bytes that the host sent. They are dropped if the tool has closed its standard input.
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

    /// The host sends no more input: the pipe is closed once all kept bytes are written.
    pub(super) fn end(&mut self, pipe: &mut Option<File>) {
        self.is_open = false;
        self.pass_on(pipe);
    }

    /// Writes as many kept bytes as the pipe has room for. Closes the pipe if nothing is left and the host sends no
    /// more.
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

/// Writes as many bytes as the pipe has room for, and returns their number. Closes the pipe if the tool has closed its
/// end.
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
