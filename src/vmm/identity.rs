//! Who a VMM process is, in a form that outlives the agent that started it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::procfs;

/// No record is longer than this, in bytes.
const MAX_RECORD: u64 = 64 * 1024;

/// A process: ids are used again, but not by two processes that started in the same clock tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) pid: u32,
    /// Clock ticks since the boot.
    pub(super) start_time: u64,
}

/// The content of `vmm.json`.
///
/// It is written twice: before the process is started, without [`vmm`](Record::vmm), and right after. An agent that is
/// killed between the two leaves a VMM whose id nobody wrote down; the inode of its listener, which nobody else
/// has open once the agent is gone, is then enough to find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The boot of the machine that the rest is about.
    pub(super) boot_id: String,
    /// The process that starts the VMM.
    pub(super) agent: Stamp,
    /// The inode of the api-socket's listener, as `/proc/<pid>/fd` shows it.
    pub(super) listener_inode: u64,
    /// The VMM's executable, for people.
    pub(super) binary: String,
    /// The VMM, once it is started.
    pub(super) vmm: Option<Stamp>,
}

impl Record {
    /// The record of a VMM that this process is about to start.
    pub(super) fn before_spawn(binary: &Path, listener_inode: u64) -> io::Result<Record> {
        Ok(Record {
            boot_id: procfs::boot_id()?,
            agent: procfs::stamp(std::process::id())?,
            listener_inode,
            binary: binary.to_string_lossy().into_owned(),
            vmm: None,
        })
    }

    /// Writes the record to `path`, which has the old content or the new one at any time.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("json.new");
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?
            .write_all(&serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, path)
    }

    /// Reads the record at `path`.
    pub(super) fn read(path: &Path) -> io::Result<Record> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_RECORD).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Record;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.json");
        let mut record = Record::before_spawn("/bin/vmm".as_ref(), 7).unwrap();
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        record.vmm = Some(record.agent);
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }
}
