//! Fills an empty file with the bytes of another file: by sharing blocks where the filesystem supports it, otherwise by
//! copying the data without the holes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::extents::Extents;
use super::file::FileStatus;
use super::read::{ReadError, check_length};
use super::{Change, Error, FileIdentity};

/// How a copy was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CopyMethod {
    /// The copy shares its blocks with the original until one of them is written to (FICLONE).
    Reflink,
    /// The data was copied; holes and blocks of zeros were left out.
    SparseCopy,
}

/// The result of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// How it was made.
    pub method: CopyMethod,
    /// The length of the copy in bytes, holes included. It equals the length of the original.
    pub length: u64,
    /// The number of bytes that were written to the copy: 0 for a reflink.
    pub bytes_copied: u64,
    /// Which file the copy is.
    pub identity: FileIdentity,
    /// How long it took.
    pub elapsed: Duration,
}

/// Gives the empty file `to` the bytes of `from`. Errors call the original `name`, and the copy a file in `directory`.
///
/// # Errors
///
/// [`Error::NotRegular`] and [`Error::Changed`] for `from`; [`Error::NoSpace`]; [`Error::Io`]. After an error, the
/// content of `to` is undefined.
pub(super) fn fill(to: &File, directory: &Path, from: &File, name: &Path) -> Result<Copied, Error> {
    let started = Instant::now();
    let length = FileStatus::of(from, name)?.length;
    let changed = |found| {
        let change = Change::Length {
            before: length,
            found,
        };
        Error::changed(name, change)
    };
    let (method, bytes_copied) = transfer(to, from, length).map_err(|failure| match failure {
        Failure::Read(ReadError::Length { found }) => changed(found),
        Failure::Read(ReadError::Io(error)) => Error::io("read", name)(error),
        Failure::Write(source) if is_no_space(&source) => Error::NoSpace {
            directory: directory.to_owned(),
            length,
            source,
        },
        Failure::Write(error) => Error::io("write a copy in", directory)(error),
    })?;
    let copy = FileStatus::of(to, directory)?;
    if copy.length != length {
        return Err(changed(copy.length));
    }
    Ok(Copied {
        method,
        length,
        bytes_copied,
        identity: copy.identity,
        elapsed: started.elapsed(),
    })
}

/// Copies the `length` bytes of `from` to `to`. Returns the method and the number of bytes that were written. A reflink
/// copies the length that `from` has at that moment, which may differ from `length`.
fn transfer(to: &File, from: &File, length: u64) -> Result<(CopyMethod, u64), Failure> {
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => return Ok((CopyMethod::Reflink, 0)),
        // The filesystem has no reflinks, the files lie on two filesystems, or a flag of a file forbids it. Each
        // filesystem reports this by another error number.
        Err(
            Errno::OPNOTSUPP
            | Errno::XDEV
            | Errno::INVAL
            | Errno::NOTTY
            | Errno::NOSYS
            | Errno::PERM,
        ) => {}
        Err(errno) => return Err(Failure::Write(errno.into())),
    }
    to.set_len(length).map_err(Failure::Write)?;
    let mut copied = 0;
    let mut buffer = vec![0; BLOCK];
    for data in Extents::of(from, length) {
        let data = data.map_err(Failure::read)?;
        copied += copy_data(to, from, data, length, &mut buffer)?;
    }
    check_length(from, length).map_err(Failure::Read)?;
    Ok((CopyMethod::SparseCopy, copied))
}

/// Which side of a copy failed, so that the error can name the right file.
#[derive(Debug)]
enum Failure {
    /// The original.
    Read(ReadError),
    /// The copy.
    Write(io::Error),
}

impl Failure {
    fn read(error: io::Error) -> Failure {
        Failure::Read(error.into())
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory
    )
}

/// The number of bytes that are read and written at a time, aligned to this size. A block of zeros is left as a hole.
const BLOCK: usize = 64 << 10;

fn copy_data(
    to: &File,
    from: &File,
    data: Range<u64>,
    length: u64,
    buffer: &mut [u8],
) -> Result<u64, Failure> {
    let mut copied = 0;
    let mut offset = data.start;
    while offset < data.end {
        let block_end = (offset / BLOCK as u64 + 1) * BLOCK as u64;
        let bytes = &mut buffer[..(block_end.min(data.end) - offset) as usize];
        #[cfg(test)]
        super::read::test_events::happen();
        let read = from.read_exact_at(bytes, offset);
        read.map_err(|error| Failure::Read(ReadError::of_reading(error, from, length)))?;
        if !is_zero(bytes) {
            to.write_all_at(bytes, offset).map_err(Failure::Write)?;
            copied += bytes.len() as u64;
        }
        offset += bytes.len() as u64;
    }
    Ok(copied)
}

/// Compares the bytes with zeros, which the C library does faster than a loop over them, and as fast in debug builds.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|piece| *piece == ZEROS[..piece.len()])
}
