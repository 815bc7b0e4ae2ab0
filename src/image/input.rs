//! Reads input files, with a bound on their size.

use std::path::Path;

use super::Error;
use crate::files::{ReadError, Symlinks, read_bounded};

pub(super) const MIB: u64 = 1024 * 1024;

/// Reads a whole regular file of at most `limit` bytes.
///
/// The file is opened without blocking, so that a FIFO is refused at once.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    read_bounded(path, limit, Symlinks::Follow).map_err(|error| match error {
        ReadError::Failed { operation, source } => Error::io(operation, path)(source),
        ReadError::NotRegular => Error::NotRegular { path: path.into() },
        ReadError::TooLarge { size, limit } => Error::TooLarge {
            path: path.into(),
            size,
            limit,
        },
    })
}

/// The little-endian number at `offset`, or `None` beyond the end.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

/// The little-endian number at `offset`, or `None` beyond the end.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

/// The little-endian number at `offset`, or `None` beyond the end.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}
