//! [`remove_tree`] removes a directory in which a hostile process may have made any files and folders.
//!
//! The removal is iterative and needs three descriptors at most, however deep the tree is: folders within a folder are
//! moved up, so that the tree becomes flat while it is removed. Symbolic links are removed and never followed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Removes `path` with its content, until `deadline`. Returns whether everything was removed. If not, a later call can
/// remove the rest. A path that doesn't exist counts as removed.
///
/// # Errors
///
/// The kernel's error if it refuses a step.
pub(crate) fn remove_tree(path: &Path, deadline: Instant) -> io::Result<bool> {
    let folder = match rustix::fs::open(path, FOLDER, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let mut moved = 0;
    loop {
        match empty_once(folder.as_fd(), &mut moved, deadline)? {
            Pass::Late => return Ok(false),
            Pass::Changed => continue,
            Pass::Empty => {}
        }
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            // Another process has made a file in it since it was found empty.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

enum Pass {
    /// The folder had no entries.
    Empty,
    /// The folder had entries, and may have more.
    Changed,
    /// The deadline has passed.
    Late,
}

/// Removes every entry of `folder`. Folders within its folders are moved up into `folder`.
fn empty_once(folder: BorrowedFd<'_>, moved: &mut u64, deadline: Instant) -> io::Result<Pass> {
    let mut pass = Pass::Empty;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if Instant::now() >= deadline {
            return Ok(Pass::Late);
        }
        pass = Pass::Changed;
        if !unlink(folder, name)? {
            lift(folder, name, moved, deadline)?;
            match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
                // The folder isn't empty if the deadline passed before all its folders were moved up.
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(pass)
}

/// Removes a file or an empty folder. Returns `false` for a folder that isn't empty.
fn unlink(folder: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes the entries of the folder `name` in `folder`, and moves its folders that aren't empty up into `folder`.
fn lift(
    folder: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    moved: &mut u64,
    deadline: Instant,
) -> io::Result<()> {
    let inner = open_any(folder, name)?;
    for entry in Dir::read_from(&inner)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if Instant::now() >= deadline {
            return Ok(());
        }
        if unlink(inner.as_fd(), name)? {
            continue;
        }
        // Moving a folder changes its entry `..`, so the folder must be writable. `open_any` sets its mode.
        drop(open_any(inner.as_fd(), name)?);
        loop {
            let free = format!("lifted-{moved}");
            *moved += 1;
            let flags = RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&inner, name, folder, free.as_str(), flags) {
                Err(Errno::EXIST) => {}
                Ok(()) | Err(Errno::NOENT) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Opens a folder whatever its mode is, after setting a mode with which it can be emptied.
fn open_any(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let mode = rustix::fs::fstat(&held)?.st_mode;
    if mode & 0o700 != 0o700 {
        rustix::fs::chmod(path.as_str(), Mode::RWXU)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path.as_str(), flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(600)
    }

    /// Makes `depth` folders within each other. It uses descriptors, since a path would be too long.
    fn nest(at: &Path, depth: usize) {
        let mut folder = rustix::fs::open(at, FOLDER, Mode::empty()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&folder, "deeper", Mode::RWXU).unwrap();
            folder = rustix::fs::openat(&folder, "deeper", FOLDER, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn folders_are_removed_however_deep_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tree");
        fs::create_dir(&path).unwrap();
        nest(&path, 3_000);
        assert!(remove_tree(&path, later()).unwrap());
        assert!(!path.exists());
        assert!(remove_tree(&path, later()).unwrap(), "again");
    }

    #[test]
    fn any_kind_of_file_is_removed_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "precious").unwrap();
        let path = folder.path().join("tree");
        fs::create_dir_all(path.join("a/b/c")).unwrap();
        fs::write(path.join("a/file"), "").unwrap();
        fs::write(path.join("lifted-0"), "in the way").unwrap();
        symlink(&kept, path.join("link")).unwrap();
        symlink(&kept, path.join("a/b/link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path.join("fifo"),
            rustix::fs::FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path.join("a/socket")).unwrap();
        fs::set_permissions(path.join("a/b/c"), Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(path.join("a/b"), Permissions::from_mode(0o500)).unwrap();

        assert!(remove_tree(&path, later()).unwrap());
        assert!(!path.exists());
        assert_eq!(fs::read(kept.join("file")).unwrap(), b"precious");
    }

    #[test]
    fn files_that_are_made_during_the_removal_are_removed_too() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let path = folder.path().join("tree");
            fs::create_dir_all(path.join("a/b")).unwrap();
            let made_in = path.clone();
            let maker = std::thread::spawn(move || {
                // The loop ends once the folder itself is removed.
                let mut number = 0;
                while number < 100 && fs::create_dir(made_in.join(number.to_string())).is_ok() {
                    number += 1;
                }
            });
            assert!(remove_tree(&path, later()).unwrap());
            maker.join().unwrap();
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_removal_stops_at_its_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tree");
        fs::create_dir(&path).unwrap();
        nest(&path, 3);
        assert!(!remove_tree(&path, Instant::now()).unwrap());
        assert!(path.join("deeper/deeper/deeper").exists());
        assert!(remove_tree(&path, later()).unwrap());
    }

    #[test]
    fn a_path_that_is_no_folder_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        fs::create_dir(&kept).unwrap();
        let link = folder.path().join("link");
        symlink(&kept, &link).unwrap();
        remove_tree(&link, later()).unwrap_err();
        assert!(kept.exists() && link.exists());
    }
}
