//! What `/proc` knows of a process.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::identity::Stamp;

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
    let start_time = start_time(&stat).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Stamp { pid, start_time })
}

/// Field 22 of `/proc/<pid>/stat`: the start of the process in clock ticks since the boot.
fn start_time(stat: &[u8]) -> Option<u64> {
    // Field 2 is the name in parentheses. It can hold anything, parentheses too: count from the last one.
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// Whether the process has the socket with this inode open. An error of kind `PermissionDenied`: it has privileges that
/// we don't, and its descriptors can't be seen.
pub(super) fn holds_socket(pid: u32, inode: u64) -> io::Result<bool> {
    let expected = format!("socket:[{inode}]");
    for entry in fs::read_dir(directory(pid).join("fd")).map_err(gone_is_not_found)? {
        let entry = entry.map_err(gone_is_not_found)?;
        match fs::read_link(entry.path()) {
            Ok(target) if target.as_os_str() == expected.as_str() => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(gone_is_not_found(error)),
        }
    }
    Ok(false)
}

/// The processes of this user that have the socket with this inode open, as far as their descriptors can be seen.
pub(super) fn socket_holders(inode: u64) -> io::Result<Vec<Stamp>> {
    let user = rustix::process::geteuid().as_raw();
    let mut holders = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Any of them may end while it is looked at.
        let ours = entry
            .metadata()
            .is_ok_and(|metadata| metadata.uid() == user);
        if ours && holds_socket(pid, inode).unwrap_or(false) {
            holders.extend(stamp(pid).ok());
        }
    }
    Ok(holders)
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
    fn the_start_time_is_field_22_whatever_the_name() {
        fn check(name: &str, expected: Option<u64>) {
            let stat =
                format!("7 {name} S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 2222 23 24\n");
            assert_eq!(start_time(stat.as_bytes()), expected, "{name}");
        }

        check("(vmm)", Some(2222));
        check("(a) b (c d)", Some(2222));
        check("()", Some(2222));
        check("no parentheses", None);
        assert_eq!(start_time(b"7 (short) S 1 2"), None);
        assert_eq!(start_time(b""), None);
    }

    #[test]
    fn this_process_is_found_by_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let inode = socket_inode(&listener).unwrap();
        let me = stamp(std::process::id()).unwrap();

        assert!(holds_socket(me.pid, inode).unwrap());
        assert!(socket_holders(inode).unwrap().contains(&me));
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
}
