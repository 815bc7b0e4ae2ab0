//! Filling a new file with another's bytes: shared blocks where the filesystem can, else the data without the holes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::extents::Extents;

/// How a copy was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyMethod {
    /// The copy shares its blocks with the original until one of them is written to (FICLONE).
    Reflink,
    /// The data was copied, holes and blocks of zeros left out.
    SparseCopy,
}

/// Makes `to`, which is new and empty, equal to the `length` bytes of `from`. Returns how, and how many bytes were
/// written.
///
/// A `from` that ends early or late is [`io::ErrorKind::UnexpectedEof`], read from the original.
pub(super) fn fill(to: &File, from: &File, length: u64) -> Result<(CopyMethod, u64), Failure> {
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => return Ok((CopyMethod::Reflink, 0)),
        // Not on this filesystem, not between these two, or not by these flags: each says so in its own way.
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
        copied += copy_data(to, from, data.map_err(Failure::Read)?, &mut buffer)?;
    }
    if from.read_at(&mut [0], length).map_err(Failure::Read)? != 0 {
        return Err(Failure::Read(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok((CopyMethod::SparseCopy, copied))
}

/// Which side of a copy failed, so that the error can name the right file.
#[derive(Debug)]
pub(super) enum Failure {
    /// The original.
    Read(io::Error),
    /// The copy.
    Write(io::Error),
}

/// Read and written at a time, on boundaries of its own size; what is all zeros is left a hole.
const BLOCK: usize = 256 << 10;

fn copy_data(to: &File, from: &File, data: Range<u64>, buffer: &mut [u8]) -> Result<u64, Failure> {
    let mut copied = 0;
    let mut offset = data.start;
    while offset < data.end {
        let block_end = (offset / BLOCK as u64 + 1) * BLOCK as u64;
        let bytes = &mut buffer[..(block_end.min(data.end) - offset) as usize];
        from.read_exact_at(bytes, offset).map_err(Failure::Read)?;
        if !is_zero(bytes) {
            to.write_all_at(bytes, offset).map_err(Failure::Write)?;
            copied += bytes.len() as u64;
        }
        offset += bytes.len() as u64;
    }
    Ok(copied)
}

/// In groups, each of which is looked at as a whole: that is many times faster than byte by byte.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(128)
        .all(|group| group.iter().fold(0, |seen, byte| seen | byte) == 0)
}
