//! [`DirectoryLock`] ensures that only one machine works in a directory.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use super::layout::Layout;
use crate::causes::Causes;
use crate::files::{is_at, open_lock_file};

/// The lock on a directory that the caller gave to a machine: an `flock` on a file in it, held until this is dropped.
/// The kernel releases it when the process ends.
///
/// A machine works on its own copies in its own directory, so two machines can only change the same file if they share
/// a directory. The directory of a spawned VMM is new, and the module `vmm` locks it. This lock is for a directory that
/// the caller names, which is the case for a VMM that another program runs.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    path: PathBuf,
    _file: File,
}

const LOCK: &str = "machine.lock";

impl DirectoryLock {
    /// Locks the directory. If it contains a file that the machine would replace or remove, it is refused, unless an
    /// earlier machine has left that file. An earlier machine that was killed has left its lock's file as well.
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
            let lock = open_lock_file(&path);
            let lock = lock.map_err(Error::file("create", path.as_path()))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::DirectoryInUse {
                        directory: directory.to_owned(),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(Error::file("lock", path)(error)),
            }
            // The machine that held the lock before may have removed its file after this process opened it.
            if is_at(&lock, &path).unwrap_or(false) {
                return Ok(DirectoryLock { path, _file: lock });
            }
        }
    }
}

impl Drop for DirectoryLock {
    /// Removes the lock's file while it is still locked. A machine that has already opened the file then notices that
    /// the path no longer leads to it.
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.path.display();
                tracing::warn!(%path, error = %Causes(&error), "cannot remove the lock of a machine's directory");
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
    fn only_one_machine_at_a_time_can_lock_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let lock = take(folder.path()).unwrap();
        let error = take(folder.path()).unwrap_err();
        assert!(matches!(error, Error::DirectoryInUse { .. }), "{error}");
        drop(lock);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        take(folder.path()).unwrap();
    }

    #[test]
    fn a_directory_with_files_of_another_program_is_refused() {
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
    fn a_directory_that_a_killed_machine_left_can_be_locked() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK), "").unwrap();
        fs::write(folder.path().join("overlay.img"), "left").unwrap();
        take(folder.path()).unwrap();
    }
}
