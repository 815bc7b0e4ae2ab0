//! Who a VMM process is, in a form that outlives the agent that started it.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::vmm::files::{create_private, open_regular};
use crate::vmm::procfs::{self, Stamp};

/// No file that tells who a process is, is longer than this, in bytes.
const MAX_RECORD: u64 = 64 * 1024;

/// Reads the copy of `/proc/<pid>/stat` that the VMM's process left at `path`.
pub(in crate::vmm) fn read_stamp(path: &Path) -> io::Result<Stamp> {
    Stamp::parse(&read_bounded(path)?).ok_or(io::ErrorKind::InvalidData.into())
}

/// The content of `vmm.json`: what is known before the VMM is started.
///
/// The rest is written by the process itself, between fork and exec: a copy of its `/proc/self/stat`, from which a
/// [`Stamp`] is read. So there is no moment at which a VMM runs that isn't on record: before that copy is written, the
/// parent-death signal holds for certain, because only exec can drop it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vmm) struct Record {
    /// The boot of the machine that the rest is about.
    pub(in crate::vmm) boot_id: String,
    /// The inode of the api-socket's listener, as `/proc/<pid>/fd` shows it.
    pub(in crate::vmm) listener_inode: u64,
    /// The VMM's executable.
    pub(in crate::vmm) binary: PathBuf,
    /// Whose the process is.
    pub(in crate::vmm) uid: u32,
    /// Its control group, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::vmm) cgroup: Option<PathBuf>,
}

impl Record {
    /// The record of a VMM that this process is about to start.
    pub(in crate::vmm) fn new(
        binary: &Path,
        listener_inode: u64,
        cgroup: Option<&Path>,
    ) -> io::Result<Record> {
        Ok(Record {
            boot_id: procfs::boot_id()?,
            listener_inode,
            binary: binary.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            cgroup: cgroup.map(Path::to_owned),
        })
    }

    /// Writes the record to `path`.
    pub(in crate::vmm) fn write(&self, path: &Path) -> io::Result<()> {
        create_private(path)?.write_all(&serde_json::to_vec_pretty(self)?)
    }

    /// Reads the record at `path`.
    pub(in crate::vmm) fn read(path: &Path) -> io::Result<Record> {
        Ok(serde_json::from_slice(&read_bounded(path)?)?)
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(MAX_RECORD)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.json");
        let record = Record::new("/bin/vmm".as_ref(), 7, None).unwrap();
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.json");
        let mode = rustix::fs::Mode::RWXU;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        // Neither waits for a writer.
        Record::read(&path).unwrap_err();
        read_stamp(&path).unwrap_err();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc/self/stat", &link).unwrap();
        read_stamp(&link).unwrap_err();
    }
}
