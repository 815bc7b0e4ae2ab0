//! Reads the open files of a process from `/proc` ([`OpenFile`]).

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::procfs;

/// A file that a process has open, by one of its descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenFile {
    /// The number of the descriptor in that process.
    pub fd: u32,
    /// The device of the file (`st_dev`).
    pub device: u64,
    /// The file's inode (`st_ino`). Device and inode identify the file even if it was renamed or removed.
    pub inode: u64,
    /// Whether the descriptor is open for writing.
    pub writable: bool,
    /// Whether the process holds a lock on the file through this descriptor.
    pub locked: bool,
}

/// Calls `look` with each open file of the process that has a `wanted` device and inode, until `look` breaks. The
/// descriptors in `first` come before all others.
pub(super) fn look(
    pid: u32,
    first: &[u32],
    wanted: impl Fn(u64, u64) -> bool,
    mut look: impl FnMut(OpenFile) -> ControlFlow<()>,
) -> io::Result<()> {
    let process = procfs::directory(pid);
    procfs::look_at_descriptors(pid, first, |fd| {
        let file = read_one(&process, fd, &wanted)?;
        Ok(file.map_or(ControlFlow::Continue(()), &mut look))
    })
    .map(drop)
}

fn read_one(
    process: &Path,
    fd: u32,
    wanted: impl Fn(u64, u64) -> bool,
) -> io::Result<Option<OpenFile>> {
    // The link in `/proc` leads to the open file itself, not to the file that is at its path now.
    let file = fs::metadata(process.join("fd").join(fd.to_string()))?;
    if !wanted(file.dev(), file.ino()) {
        return Ok(None);
    }
    let info = fs::read_to_string(process.join("fdinfo").join(fd.to_string()))?;
    let info = parse_info(&info).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(OpenFile {
        fd,
        device: file.dev(),
        inode: file.ino(),
        writable: info.writable,
        locked: info.locked,
    }))
}

#[derive(Debug, PartialEq, Eq)]
struct Info {
    writable: bool,
    locked: bool,
}

fn parse_info(info: &str) -> Option<Info> {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
    Some(Info {
        writable: matches!(flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR),
        // The kernel shows only held locks here, not waiting requests (`lock: 1: -> ...`).
        locked: info.lines().any(|line| line.starts_with("lock:")),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsRawFd;

    use rustix::fs::FlockOperation;

    use super::*;

    #[test]
    fn access_and_lock_are_read_from_fdinfo() {
        fn check(info: &str, expected: Option<(bool, bool)>) {
            let expected = expected.map(|(writable, locked)| Info { writable, locked });
            assert_eq!(parse_info(info), expected, "{info}");
        }

        check(
            "pos:\t0\nflags:\t0100000\nmnt_id:\t1\n",
            Some((false, false)),
        );
        check("pos:\t0\nflags:\t0100001\n", Some((true, false)));
        check("pos:\t0\nflags:\t02100002\n", Some((true, false)));
        check(
            "flags:\t0100002\nlock:\t1: OFDLCK  ADVISORY  WRITE -1 00:2a:9 0 EOF\n",
            Some((true, true)),
        );
        check("pos:\t0\n", None);
        check("flags:\tnine\n", None);
        check("", None);
    }

    #[test]
    fn a_file_is_known_by_its_inode_after_it_was_renamed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let disk = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        rustix::fs::flock(&disk, FlockOperation::LockExclusive).unwrap();
        let reader = File::open(&path).unwrap();
        let identity = disk.metadata().unwrap();
        fs::write(dir.path().join("other"), "").unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();

        let read = |first: &[u32]| {
            let mut files = Vec::new();
            let all = |file| {
                files.push(file);
                ControlFlow::Continue(())
            };
            look(std::process::id(), first, |_, _| true, all).unwrap();
            files
        };
        let files = read(&[]);
        let find = |file: &File| {
            let fd = file.as_raw_fd() as u32;
            *files.iter().find(|open| open.fd == fd).unwrap()
        };
        for (file, writable) in [(&disk, true), (&reader, false)] {
            let found = find(file);
            assert_eq!(
                (found.device, found.inode),
                (identity.dev(), identity.ino())
            );
            assert_eq!(found.writable, writable);
            assert_eq!(found.locked, writable);
        }
        // Each descriptor is visited once, and those in `first` come first.
        let first = [&reader, &disk].map(|file| file.as_raw_fd() as u32);
        let again = read(&first);
        assert_eq!([again[0].fd, again[1].fd], first);
        let times = |fd| again.iter().filter(|file| file.fd == fd).count();
        assert_eq!(first.map(times), [1, 1]);
    }

    #[test]
    fn the_search_ends_when_the_callback_breaks() {
        let disk = tempfile::tempfile().unwrap();
        let fd = disk.as_raw_fd() as u32;
        for first in [&[][..], &[fd], &[1 << 20, 0, fd]] {
            let identity = disk.metadata().unwrap();
            let wanted = |device, inode| (device, inode) == (identity.dev(), identity.ino());
            let mut found = Vec::new();
            let one = |file: OpenFile| {
                found.push(file.fd);
                ControlFlow::Break(())
            };
            look(std::process::id(), first, wanted, one).unwrap();
            assert_eq!(found, [fd], "{first:?}");
        }
    }
}
