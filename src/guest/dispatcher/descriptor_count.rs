//! Counts the open descriptors of all processes. Every reset needs this count, so counting the descriptors of a process
//! allocates nothing.

use std::ffi::CStr;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::processes;

/// The size of the buffer for directory entries, in bytes. A longer directory is read with several calls.
const ENTRIES: usize = 2048;

/// The size of the buffer for the target of a descriptor's link, in bytes. The beginning is enough to recognise a
/// socket.
const TARGET: usize = 16;

/// The number of descriptors of all processes, without sockets and without those that counting itself opens.
pub(super) fn count_all() -> io::Result<u64> {
    let mut all = 0;
    for pid in processes::pids()? {
        // A process that has ended since the list was read has no descriptors.
        match count(pid) {
            Ok(open) => all += open,
            Err(error) if has_ended(error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

/// The number of descriptors in `/proc/<pid>/fd`, without sockets and without the one that reads this directory.
fn count(pid: u32) -> Result<u64, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut path = [0; 32];
    let directory = rustix::fs::openat(CWD, fd_directory(pid, &mut path)?, flags, Mode::empty())?;
    let reading = (pid == std::process::id()).then(|| directory.as_raw_fd());
    let mut buffer = [MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(directory.as_fd(), &mut buffer);
    let mut count = 0;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let fd = entry.file_name().to_str().ok();
        let Some(fd) = fd.and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if reading == Some(fd) {
            continue;
        }
        let mut target = [MaybeUninit::uninit(); TARGET];
        match rustix::fs::readlinkat_raw(&directory, entry.file_name(), &mut target) {
            Ok((target, _)) => count += u64::from(!target.starts_with(b"socket:")),
            // The path of an open file can be too long for `readlink`. The target of a socket is always short.
            Err(Errno::NAMETOOLONG) => count += 1,
            Err(error) if has_ended(error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Writes the path `/proc/<pid>/fd` into `buffer`, which must be zeroed.
fn fd_directory(pid: u32, buffer: &mut [u8; 32]) -> Result<&CStr, Errno> {
    let path = buffer.as_mut_slice();
    write!(&mut &mut *path, "/proc/{pid}/fd").map_err(|_| Errno::NAMETOOLONG)?;
    CStr::from_bytes_until_nul(path).map_err(|_| Errno::NAMETOOLONG)
}

/// Whether the error means that the process has ended or closed the descriptor in the meantime.
fn has_ended(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_leaves_out_sockets_and_itself() {
        // Other tests open and close descriptors of this process meanwhile, so its count has only a lower bound. No
        // other test touches the child, so the count of the child is exact.
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let directory = format!("/proc/{}/fd", child.id());
        let counted = count(child.id()).unwrap();
        let listed = std::fs::read_dir(&directory).unwrap().count() as u64;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(counted, listed);
        assert!(has_ended(count(child.id()).unwrap_err()));

        let own = count(std::process::id()).unwrap();
        assert!(own >= 3, "{own}");
    }

    /// A tool can open a directory whose path is too long for `readlink`. The descriptor counts like any other.
    #[test]
    fn a_descriptor_whose_path_is_too_long_for_readlink_is_counted() {
        let top = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let mut deep = rustix::fs::open(top.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..25 {
            rustix::fs::mkdirat(&deep, &name, Mode::RWXU).unwrap();
            deep = rustix::fs::openat(&deep, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let link = format!("/proc/self/fd/{}", deep.as_raw_fd());
        assert_eq!(
            rustix::fs::readlink(link, Vec::new()),
            Err(Errno::NAMETOOLONG)
        );
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::from(deep))
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let counted = count(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(counted.as_ref().is_ok_and(|open| *open >= 3), "{counted:?}");
    }

    #[test]
    fn the_path_of_every_pid_fits_the_buffer() {
        let path = |pid| fd_directory(pid, &mut [0; 32]).map(CStr::to_owned);
        assert_eq!(path(1).as_deref(), Ok(c"/proc/1/fd"));
        assert_eq!(path(u32::MAX).as_deref(), Ok(c"/proc/4294967295/fd"));
    }
}
