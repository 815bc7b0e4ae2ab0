//! [`ReadError`]: why a file could not be read whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::overlay::{Change, Error};

/// Why a file was not read whole.
#[derive(Debug)]
pub(in crate::overlay) enum ReadError {
    /// The file was truncated or grew. See [`Change::Length`].
    Length { found: u64 },
    /// The system refused to read it.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        ReadError::Io(error)
    }
}

impl ReadError {
    /// Makes the public error for the file `name`, which had `before` bytes.
    pub(in crate::overlay) fn of(self, name: &Path, before: u64) -> Error {
        match self {
            ReadError::Length { found } => Error::changed(name, Change::Length { before, found }),
            ReadError::Io(error) => Error::io("read", name)(error),
        }
    }

    /// Classifies an error of reading within the file's first `length` bytes: an unexpected end means that the file was
    /// truncated.
    pub(in crate::overlay) fn of_reading(error: io::Error, file: &File, length: u64) -> ReadError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::cut_off(file, length),
            _ => error.into(),
        }
    }

    fn cut_off(file: &File, length: u64) -> ReadError {
        match file.metadata() {
            Ok(now) => ReadError::Length {
                found: now.len().min(length.saturating_sub(1)),
            },
            Err(error) => error.into(),
        }
    }

    /// The file has more than `length` bytes.
    fn grown(file: &File, length: u64) -> ReadError {
        match file.metadata() {
            Ok(now) => ReadError::Length {
                found: now.len().max(length.saturating_add(1)),
            },
            Err(error) => error.into(),
        }
    }
}

/// Fails unless a file of which `length` bytes were read still has that length. A file of `/proc` doesn't report its
/// length, so this also tries to read one byte more.
pub(in crate::overlay) fn check_length(file: &File, length: u64) -> Result<(), ReadError> {
    if read_beyond(file, length)? {
        return Err(ReadError::grown(file, length));
    }
    // Reading can't detect a truncation of bytes that were read before, or of a hole, so the length is compared too.
    match file.metadata()?.len() {
        now if now < length => Err(ReadError::Length { found: now }),
        _ => Ok(()),
    }
}

/// Whether the file has a byte at `length`.
fn read_beyond(file: &File, length: u64) -> io::Result<bool> {
    match file.read_exact_at(&mut [0], length) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
