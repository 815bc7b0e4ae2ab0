//! A directory that is one machine's alone.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Error;
use super::layout::Layout;
use crate::causes::Causes;
use crate::overlay::FileIdentity;

/// The lock on a directory that was given to a machine (`flock` on a file in it), for as long as this lives. It ends
/// with the process that holds it, however that ends.
///
/// A machine works on copies of its own in its own directory, so two of them can only get at one file if they share
/// that directory. A spawned VMM's is new, and `vmm` locks it; this lock is for one that was given.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    path: PathBuf,
    _file: File,
}

const LOCK: &str = "machine.lock";

impl DirectoryLock {
    /// Locks the directory of `layout`, in which nothing may lie that the machine would replace or remove, unless it
    /// was left by an earlier one: that left its lock as well.
    pub(super) fn take(directory: &Path, layout: &Layout) -> Result<DirectoryLock, Error> {
        let path = directory.join(LOCK);
        if path.symlink_metadata().is_err()
            && let Some(file) = layout.present()
        {
            return Err(Error::DirectoryTaken {
                directory: directory.to_owned(),
                file,
            });
        }
        loop {
            let lock = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
                .open(&path)
                .map_err(Error::file("create", path.as_path()))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::DirectoryInUse {
                        directory: directory.to_owned(),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(Error::file("lock", path)(error)),
            }
            // The machine that held it before may have removed it after it was opened here.
            if is_named(&lock, &path) {
                return Ok(DirectoryLock { path, _file: lock });
            }
        }
    }
}

fn is_named(file: &File, path: &Path) -> bool {
    match (path.symlink_metadata(), file.metadata()) {
        (Ok(named), Ok(open)) => FileIdentity::from(&named) == FileIdentity::from(&open),
        _ => false,
    }
}

impl Drop for DirectoryLock {
    /// Removes the lock's file while it is still locked: a machine that has opened it meanwhile sees that it lost its
    /// name.
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), error = %Causes(&error), "the lock of a machine's directory stays");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(directory: &Path) -> Result<DirectoryLock, Error> {
        let layout = Layout::new(directory.to_owned(), directory.to_owned(), None).unwrap();
        DirectoryLock::take(directory, &layout)
    }

    #[test]
    fn a_directory_is_one_machines_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let claim = take(folder.path()).unwrap();
        let error = take(folder.path()).unwrap_err();
        assert!(matches!(error, Error::DirectoryInUse { .. }), "{error}");
        drop(claim);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        take(folder.path()).unwrap();
    }

    #[test]
    fn files_of_another_program_are_not_taken_for_the_machines() {
        for name in ["overlay.img", "root.img", "snapshot", "console.log"] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(name), "precious").unwrap();
            let error = take(folder.path()).unwrap_err();
            let expected = folder.path().join(name);
            assert!(
                matches!(&error, Error::DirectoryTaken { file, .. } if *file == expected),
                "{error}"
            );
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_a_machine_that_was_killed_has_left_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK), "").unwrap();
        fs::write(folder.path().join("overlay.img"), "left").unwrap();
        take(folder.path()).unwrap();
    }
}
