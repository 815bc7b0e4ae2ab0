//! What `/proc` knows of a process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
}

/// The directory of a process below `/proc`.
pub(super) fn directory(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Identifies this boot of the machine: process ids and inodes of sockets mean nothing in another.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Who has this process id now. An error of kind `NotFound`: nobody.
pub(super) fn stamp(pid: u32) -> io::Result<Stamp> {
    let stat = fs::read(directory(pid).join("stat")).map_err(gone_is_not_found)?;
    Stamp::parse(&stat).ok_or(io::ErrorKind::InvalidData.into())
}

/// The numbers of the descriptors that a process has open.
///
/// An error of kind `NotFound`: it is gone, or dying. Its first thread may end before the others, which still have open
/// what they shared. An error of kind `PermissionDenied`: it has privileges that we don't.
pub(super) fn descriptors(pid: u32) -> io::Result<Vec<u32>> {
    let mut descriptors = Vec::new();
    for entry in fs::read_dir(directory(pid).join("fd")).map_err(gone_is_not_found)? {
        let name = entry.map_err(gone_is_not_found)?.file_name();
        descriptors.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    // The C library shows the kernel's ENOENT as an empty directory.
    if descriptors.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(descriptors)
}

/// Whether the process has the socket with this inode open. Errors as for [`descriptors`].
pub(super) fn holds_socket(pid: u32, inode: u64) -> io::Result<bool> {
    let expected = format!("socket:[{inode}]");
    let directory = directory(pid).join("fd");
    for descriptor in descriptors(pid)? {
        match fs::read_link(directory.join(descriptor.to_string())) {
            Ok(target) if target.as_os_str() == expected.as_str() => return Ok(true),
            Ok(_) => {}
            // Closed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(gone_is_not_found(error)),
        }
    }
    // "Closed meanwhile" may have meant that it died meanwhile.
    descriptors(pid).map(|_| false)
}

/// The inode of an open socket, as `/proc/<pid>/fd` shows it.
pub(super) fn socket_inode(socket: impl std::os::fd::AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(socket)?.st_ino)
}

/// Reading of a process that ends meanwhile gives ESRCH, which says the same as that its directory is missing.
pub(super) fn gone_is_not_found(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ESRCH) => io::ErrorKind::NotFound.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn this_process_has_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let inode = socket_inode(&listener).unwrap();
        let me = stamp(std::process::id()).unwrap();

        assert!(holds_socket(me.pid, inode).unwrap());
        drop(listener);
        assert!(!holds_socket(me.pid, inode).unwrap());
    }

    #[test]
    fn nobody_is_not_found() {
        // Above the largest process id that Linux gives out (2^22).
        let nobody = 1 << 30;
        assert_eq!(stamp(nobody).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            holds_socket(nobody, 1).unwrap_err().kind(),
            ErrorKind::NotFound
        );
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
