//! [`Listing`]: reads the names in directories.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::{FileType, RawDir};

use super::ArchiveError;

/// The size of the buffer for directory entries, in bytes.
const AT_ONCE: usize = 32 << 10;

/// One name in a directory.
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    /// The kind of the file when the directory was read; unknown on some file systems.
    pub(super) kind: FileType,
}

/// Reads directories one after the other, with one buffer.
pub(super) struct Listing {
    buffer: Vec<MaybeUninit<u8>>,
}

impl Listing {
    pub(super) fn new() -> Listing {
        Listing {
            buffer: vec![MaybeUninit::uninit(); AT_ONCE],
        }
    }

    /// Calls `each` with the names in `directory` until `each` fails. `directory` must be newly opened, since reading
    /// goes on where the last read of the same descriptor ended. Errors show `path`.
    pub(super) fn read(
        &mut self,
        directory: impl AsFd,
        path: &[u8],
        mut each: impl FnMut(Name) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut entries = RawDir::new(directory.as_fd(), &mut self.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(ArchiveError::io("listed", path))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                each(Name {
                    name: name.to_vec(),
                    kind: entry.file_type(),
                })?;
            }
        }
        Ok(())
    }
}
