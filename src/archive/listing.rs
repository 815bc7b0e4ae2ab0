//! What is in a directory.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::{FileType, RawDir};

use super::ArchiveError;

/// How many bytes of a directory are read at once.
const AT_ONCE: usize = 32 << 10;

/// One name in a directory.
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    /// What it was when the directory was read; unknown on some file systems.
    pub(super) kind: FileType,
}

/// Reads directories, one after the other, with one buffer.
pub(super) struct Listing {
    buffer: Vec<MaybeUninit<u8>>,
}

impl Listing {
    pub(super) fn new() -> Listing {
        Listing {
            buffer: vec![MaybeUninit::uninit(); AT_ONCE],
        }
    }

    /// Gives `each` the names in `directory` until `each` fails. `directory` has to be opened anew for it: a read goes on
    /// where the last one ended. `path` is shown in errors.
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
