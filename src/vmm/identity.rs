//! Who a VMM process is, in a form that outlives the agent that started it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::procfs;

/// No file that tells who a process is, is longer than this, in bytes.
const MAX_RECORD: u64 = 64 * 1024;

/// A process: ids are used again, but not by two processes that started in the same clock tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) pid: u32,
    /// Clock ticks since the boot.
    pub(super) start_time: u64,
}

impl Stamp {
    /// Reads fields 1 and 22 of what `/proc/<pid>/stat` says.
    pub(super) fn parse(stat: &[u8]) -> Option<Stamp> {
        // Field 2 is the name in parentheses. It can hold anything, parentheses too: the last one ends it.
        let name_start = stat.iter().position(|&byte| byte == b'(')?;
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        let pid = std::str::from_utf8(&stat[..name_start]).ok()?;
        let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
        Some(Stamp {
            pid: pid.trim().parse().ok()?,
            start_time: fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?,
        })
    }

    /// Reads the copy of `/proc/<pid>/stat` that the VMM's process left at `path`.
    pub(super) fn read(path: &Path) -> io::Result<Stamp> {
        Stamp::parse(&read_bounded(path)?).ok_or(io::ErrorKind::InvalidData.into())
    }
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

    #[test]
    fn a_stamp_is_fields_1_and_22_whatever_the_name() {
        fn check(stat: &str, expected: Option<(u32, u64)>) {
            let expected = expected.map(|(pid, start_time)| Stamp { pid, start_time });
            assert_eq!(Stamp::parse(stat.as_bytes()), expected, "{stat}");
        }

        let rest = "S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 2222 23 24\n";
        for name in ["(vmm)", "(a) b (c d)", "()", "(9 (8"] {
            let stat = format!("7 {name}) {rest}");
            check(&stat, Some((7, 2222)));
        }
        check(&format!("7 vmm {rest}"), None);
        check(&format!("seven (vmm) {rest}"), None);
        check("7 )vmm(", None);
        check("7 (short) S 1 2", None);
        check("", None);
    }
}
