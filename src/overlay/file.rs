//! Opens regular files for reading, and gets their identity and length from the descriptor.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::files::{Symlinks, open_for_reading};

/// Device and inode number of a file, which identify it whatever its name. No two files that exist at the same time
/// have the same identity; a deleted file's inode number may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    /// The number of the device that holds it (`st_dev`).
    pub device: u64,
    /// Its inode number there (`st_ino`).
    pub inode: u64,
}

impl From<&Metadata> for FileIdentity {
    fn from(metadata: &Metadata) -> FileIdentity {
        FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// Identity and length of a regular file, as one call of `fstat(2)` reported them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStatus {
    pub(crate) identity: FileIdentity,
    /// In bytes.
    pub(crate) length: u64,
}

impl FileStatus {
    /// Calls `fstat(2)`. Fails for anything but a regular file. `name` is the file's name in errors.
    pub(super) fn of(file: &File, name: &Path) -> Result<FileStatus, Error> {
        let metadata = file.metadata();
        let metadata = metadata.map_err(Error::io("read the attributes of", name))?;
        match metadata.is_file() {
            true => Ok(FileStatus {
                identity: FileIdentity::from(&metadata),
                length: metadata.len(),
            }),
            false => Err(Error::NotRegular {
                path: name.to_owned(),
            }),
        }
    }
}

/// Opens the regular file that `path` leads to, for reading.
///
/// A symbolic link is followed, because an operator may keep the disk elsewhere. Opening a pipe doesn't block; like
/// everything else that isn't a regular file, it is refused.
pub(crate) fn open_regular(path: &Path) -> Result<(File, FileStatus), Error> {
    let file = open_for_reading(path, Symlinks::Follow).map_err(Error::io("open", path))?;
    let status = FileStatus::of(&file, path)?;
    Ok((file, status))
}

/// Opens an open file once more, for reading only. A lease and a file offset belong to one open file description, so
/// the new one doesn't affect those of `file`.
pub(crate) fn reopen(file: &File) -> io::Result<File> {
    open_for_reading(&own_path(file), Symlinks::Follow)
}

/// The path by which this process can open an open file again: `/proc/self/fd/<number>`.
pub(crate) fn own_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
