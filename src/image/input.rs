//! Reads input files, with a bound on their size.

use std::{fs::File, io::Read, path::Path};

use rustix::fs::{Mode, OFlags};

use super::Error;

pub(super) const MIB: u64 = 1024 * 1024;

/// Reads a whole regular file of at most `limit` bytes.
///
/// The file is opened without blocking, so that a FIFO is refused at once.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let file = rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| Error::io("open", path)(errno.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(Error::io("examine", path))?;
    if !metadata.is_file() {
        return Err(Error::NotRegular { path: path.into() });
    }
    let too_large = |size| Error::TooLarge {
        path: path.into(),
        size,
        limit,
    };
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // Reads one byte more than is allowed, to detect a file that grows during the reading.
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
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
