//! [`UnfinishedGolden`]: the folder of a golden snapshot while a mint fills it.
//!
//! The folder contains the file `.minting`, which the minting process has locked. The kernel releases the lock when the
//! process dies. So the next mint into the same path can tell whether another process is still minting there, which it
//! refuses, or was killed, in which case it removes the folder. A folder without that file is never removed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{MintError, manifest};
use crate::causes::Causes;
use crate::files::{Symlinks, create_private, create_private_directory, is_at, open_for_reading};

/// The file that the minting process locks until the golden snapshot is complete.
const IN_THE_MAKING: &str = ".minting";

/// The folder of an unfinished golden snapshot. Dropping this removes the folder; [`keep`](UnfinishedGolden::keep)
/// keeps it.
#[derive(Debug)]
pub(super) struct UnfinishedGolden {
    path: PathBuf,
    _lock: File,
    keep: bool,
}

impl UnfinishedGolden {
    /// Makes the folder, with mode 0700. If a killed mint has left a folder at this path, that folder is removed first.
    pub(super) fn create(path: &Path) -> Result<Self, MintError> {
        let path = std::path::absolute(path).map_err(failed(path))?;
        match create_private_directory(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_abandoned(&path)?;
                create_private_directory(&path).map_err(failed(&path))?;
            }
            created => created.map_err(failed(&path))?,
        }
        match lock(&path) {
            Ok(lock) => Ok(UnfinishedGolden {
                path,
                _lock: lock,
                keep: false,
            }),
            Err(source) => {
                // This removes the folder only if it is empty. By now another process may have begun to fill it.
                let _ = fs::remove_dir(&path);
                Err(MintError::Folder { path, source })
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the folder: the golden snapshot is complete.
    pub(super) fn keep(mut self) {
        self.keep = true;
        if let Err(error) = fs::remove_file(self.path.join(IN_THE_MAKING)) {
            // This is harmless: a folder with a manifest is never treated as the remainder of a killed mint.
            let path = self.path.display();
            tracing::warn!(%path, error = %Causes(&error), "cannot remove the lock file of the mint");
        }
    }
}

impl Drop for UnfinishedGolden {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // If the mint's future was dropped, a thread may still copy a disk, and make its one file while this removes
        // the folder. The second attempt removes that file too.
        let removed = fs::remove_dir_all(&self.path).or_else(|_| fs::remove_dir_all(&self.path));
        if let Err(error) = removed {
            let path = self.path.display();
            tracing::warn!(%path, error = %Causes(&error), "cannot remove an unfinished golden snapshot");
        }
    }
}

/// For `map_err`: wraps the system's error for an operation on the folder `path`.
pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> MintError {
    let path = path.to_owned();
    move |source| MintError::Folder { path, source }
}

fn lock(folder: &Path) -> io::Result<File> {
    let file = create_private(&folder.join(IN_THE_MAKING))?;
    file.try_lock()?;
    Ok(file)
}

/// Removes the folder at `path` if a killed mint has left it. Refuses anything else.
fn remove_abandoned(path: &Path) -> Result<(), MintError> {
    let exists = || MintError::Exists {
        path: path.to_owned(),
    };
    let mark = path.join(IN_THE_MAKING);
    let file = open_for_reading(&mark, Symlinks::Refuse).map_err(|_| exists())?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(MintError::InUse {
                path: path.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(failed(path)(source)),
    }
    // The file is locked. If it is also still at its path, no other process is minting into the folder or removing it.
    let ours = is_ours(&file, &mark).map_err(failed(path))?;
    if !ours || path.join(manifest::FILE).symlink_metadata().is_ok() {
        return Err(exists());
    }
    fs::remove_dir_all(path).map_err(failed(path))?;
    tracing::info!(path = %path.display(), "removed an unfinished golden snapshot of an earlier process");
    Ok(())
}

fn is_ours(file: &File, mark: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    Ok(is_at(file, mark)?
        && opened.is_file()
        && opened.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_mint_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("golden");

        let folder = UnfinishedGolden::create(&path).unwrap();
        let error = UnfinishedGolden::create(&path).unwrap_err();
        assert!(matches!(error, MintError::InUse { .. }), "{error}");
        drop(folder);
        assert!(!path.exists());

        // A killed process leaves the file without the lock.
        fs::create_dir(&path).unwrap();
        fs::write(path.join(IN_THE_MAKING), "").unwrap();
        fs::write(path.join("overlay.img"), "half").unwrap();
        let folder = UnfinishedGolden::create(&path).unwrap();
        assert!(!path.join("overlay.img").exists());
        fs::write(path.join(manifest::FILE), "{}").unwrap();
        folder.keep();
        let names: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [manifest::FILE]);

        let refused = |what: &str| {
            let error = UnfinishedGolden::create(&path).unwrap_err();
            assert!(matches!(error, MintError::Exists { .. }), "{what}: {error}");
        };
        refused("a golden snapshot");
        fs::write(path.join(IN_THE_MAKING), "").unwrap();
        refused("a golden snapshot whose maker died at its last step");
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused("an empty folder");
        fs::write(path.join("file"), "").unwrap();
        refused("a folder that no mint made");
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "").unwrap();
        refused("a file");
    }

    #[test]
    fn a_missing_parent_folder_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = UnfinishedGolden::create(&directory.path().join("missing/golden")).unwrap_err();
        assert!(matches!(error, MintError::Folder { .. }), "{error}");
    }
}
