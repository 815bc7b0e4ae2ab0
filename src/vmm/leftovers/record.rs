//! [`Record`]: the identity of a VMM's process, in a file that outlives the agent that started it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{Symlinks, read_bounded, write_private};
use crate::vmm::procfs::{self, ProcessStamp};

/// The longest record that is read, in bytes. Records are shorter.
const MAX_RECORD: u64 = 64 * 1024;

/// Reads the copy of `/proc/<pid>/stat` that the VMM's process wrote to `path`.
pub(in crate::vmm) fn read_stamp(path: &Path) -> io::Result<ProcessStamp> {
    ProcessStamp::parse(&read(path)?).ok_or(io::ErrorKind::InvalidData.into())
}

/// The content of `vmm.json`: the part of the identity that is known before the VMM is started.
///
/// The process itself writes the rest between fork and exec: a copy of its `/proc/self/stat`, from which a
/// [`ProcessStamp`] is read. So every VMM that runs is recorded. If the agent dies before the copy is written, the
/// process has not executed the VMM yet, and the parent-death signal, which only an exec can drop, ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vmm) struct Record {
    /// The id of the host's boot. The other fields are valid for this boot only.
    pub(in crate::vmm) boot_id: String,
    /// The inode of the api-socket's listener, as `/proc/<pid>/fd` shows it.
    pub(in crate::vmm) listener_inode: u64,
    /// The VMM's executable.
    pub(in crate::vmm) binary: PathBuf,
    /// The user of the process.
    pub(in crate::vmm) uid: u32,
    /// The directory of the VMM's control group, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::vmm) cgroup: Option<PathBuf>,
}

impl Record {
    /// Makes the record of a VMM that this process is about to start.
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
        write_private(path, &serde_json::to_vec_pretty(self)?).map(drop)
    }

    /// Reads the record at `path`.
    pub(in crate::vmm) fn read(path: &Path) -> io::Result<Record> {
        Ok(serde_json::from_slice(&read(path)?)?)
    }
}

/// Reads a file that an earlier agent left. Another file may be at the path by now, so a symbolic link is not followed.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    Ok(read_bounded(path, MAX_RECORD, Symlinks::Refuse)?)
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
    fn a_fifo_or_a_symbolic_link_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.json");
        let mode = rustix::fs::Mode::RWXU;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        // Neither call waits for a writer of the FIFO.
        Record::read(&path).unwrap_err();
        read_stamp(&path).unwrap_err();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc/self/stat", &link).unwrap();
        read_stamp(&link).unwrap_err();
    }

    #[test]
    fn a_record_that_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.json");
        let record = Record::new("/bin/vmm".as_ref(), 7, None).unwrap();
        let mut text = serde_json::to_vec(&record).unwrap();
        text.resize(MAX_RECORD as usize, b' ');
        std::fs::write(&path, &text).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        text.push(b' ');
        std::fs::write(&path, &text).unwrap();
        let error = Record::read(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
    }
}
