//! Who a VMM process is, in a form that outlives the agent that started it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::procfs::{self, Stamp};

/// No file that tells who a process is, is longer than this, in bytes.
const MAX_RECORD: u64 = 64 * 1024;

/// Reads the copy of `/proc/<pid>/stat` that the VMM's process left at `path`.
pub(super) fn read_stamp(path: &Path) -> io::Result<Stamp> {
    Stamp::parse(&read_bounded(path)?).ok_or(io::ErrorKind::InvalidData.into())
}

/// The content of `vmm.json`: what is known before the VMM is started.
///
/// The rest is written by the process itself, between fork and exec: a copy of its `/proc/self/stat`, from which a
/// [`Stamp`] is read. So there is no moment at which a VMM runs that isn't on record: before that copy is written, the
/// parent-death signal holds for certain, because only exec can drop it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The boot of the machine that the rest is about.
    pub(super) boot_id: String,
    /// The inode of the api-socket's listener, as `/proc/<pid>/fd` shows it.
    pub(super) listener_inode: u64,
    /// The VMM's executable, for people.
    pub(super) binary: String,
}

impl Record {
    /// The record of a VMM that this process is about to start.
    pub(super) fn new(binary: &Path, listener_inode: u64) -> io::Result<Record> {
        Ok(Record {
            boot_id: procfs::boot_id()?,
            listener_inode,
            binary: binary.to_string_lossy().into_owned(),
        })
    }

    /// Writes the record to `path`.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        create_private(path)?.write_all(&serde_json::to_vec_pretty(self)?)
    }

    /// Reads the record at `path`.
    pub(super) fn read(path: &Path) -> io::Result<Record> {
        Ok(serde_json::from_slice(&read_bounded(path)?)?)
    }
}

/// Creates a file for this user only.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_RECORD).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.json");
        let record = Record::new("/bin/vmm".as_ref(), 7).unwrap();
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
    }
}
