//! Opening a file whose bytes are wanted, and telling later whether it is still the same.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{Change, Error};

/// Which file it is, whatever its name. Unique among the files that exist at one time.
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

/// Opens the regular file that `path` leads to, for reading.
///
/// A symbolic link is followed: where an operator put the disk is the operator's business. A pipe doesn't block,
/// and is refused like anything else that isn't a regular file.
pub(super) fn open_regular(path: &Path) -> Result<(File, Stamp), Error> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path)
        .map_err(Error::io("open", path))?;
    let metadata = file
        .metadata()
        .map_err(Error::io("read the attributes of", path))?;
    if !metadata.is_file() {
        return Err(Error::NotRegular {
            path: path.to_owned(),
        });
    }
    Ok((file, Stamp::from(&metadata)))
}

/// The name of an open file for this process itself.
pub(super) fn own_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// What of a file's attributes must stay the same for its bytes to be believed to.
///
/// The timestamps are a second line: a kernel without fine-grained ones gives two writes within one tick (up to
/// 10 ms) the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) identity: FileIdentity,
    /// In bytes.
    pub(super) length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Stamp {
        Stamp {
            identity: metadata.into(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Stamp {
    /// Fails unless `path` still leads to the file that had this stamp, unchanged.
    pub(super) fn verify(&self, path: &Path) -> Result<(), Error> {
        let now = match path.metadata() {
            Ok(metadata) => Stamp::from(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::changed(path, Change::Replaced));
            }
            Err(error) => return Err(Error::io("read the attributes of", path)(error)),
        };
        let change = if now.identity != self.identity {
            Change::Replaced
        } else if now.length != self.length {
            Change::Length {
                before: self.length,
            }
        } else if now != *self {
            Change::Written
        } else {
            return Ok(());
        };
        Err(Error::changed(path, change))
    }
}
