//! The folder of a golden snapshot while it is being made.
//!
//! It holds a file that its maker has locked. The kernel drops the lock when the process dies, which tells a folder that a
//! killed mint has left from one in the making: the next mint removes the former and refuses the latter. Without that file
//! a folder is never removed.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{MintError, manifest};
use crate::causes::Causes;

/// The file that is locked as long as the folder is in the making.
const IN_THE_MAKING: &str = ".minting";

/// A folder in the making. Dropped, it is removed, unless it is [kept](Folder::keep).
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
    keep: bool,
}

impl Folder {
    /// Makes the folder, with mode 0700. One that a killed mint has left at this path is removed before.
    pub(super) fn create(path: &Path) -> Result<Self, MintError> {
        let path = std::path::absolute(path).map_err(failed(path))?;
        match create_private(&path) {
            Err(MintError::Folder { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                remove_abandoned(&path)?;
                create_private(&path)?;
            }
            created => created?,
        }
        match lock(&path) {
            Ok(lock) => Ok(Folder {
                path,
                _lock: lock,
                keep: false,
            }),
            Err(source) => {
                // Empty, or of another process by now: then it stays.
                let _ = fs::remove_dir(&path);
                Err(MintError::Folder { path, source })
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The golden snapshot is complete.
    pub(super) fn keep(mut self) {
        self.keep = true;
        if let Err(error) = fs::remove_file(self.path.join(IN_THE_MAKING)) {
            // Harmless: a folder with a manifest is never taken for one that was left.
            tracing::warn!(path = %self.path.display(), error = %Causes(&error), "a file of the mint stays");
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // A thread that still copies a disk for a mint that was dropped may make a file meanwhile; it makes one.
        let removed = fs::remove_dir_all(&self.path).or_else(|_| fs::remove_dir_all(&self.path));
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), error = %Causes(&error), "an unfinished golden snapshot stays");
        }
    }
}

/// Makes a new folder with mode 0700.
pub(super) fn create_private(path: &Path) -> Result<(), MintError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> MintError {
    let path = path.to_owned();
    move |source| MintError::Folder { path, source }
}

fn lock(folder: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join(IN_THE_MAKING))?;
    file.try_lock()?;
    Ok(file)
}

/// Removes what a killed mint has left at `path`; anything else is refused.
fn remove_abandoned(path: &Path) -> Result<(), MintError> {
    let exists = || MintError::Exists {
        path: path.to_owned(),
    };
    let mark = path.join(IN_THE_MAKING);
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(&mark);
    let file = opened.map_err(|_| exists())?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(MintError::InUse {
                path: path.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(failed(path)(source)),
    }
    // Locked and still in its place: no other process removes or makes it now.
    let ours = is_ours(&file, &mark).map_err(failed(path))?;
    if !ours || path.join(manifest::FILE).symlink_metadata().is_ok() {
        return Err(exists());
    }
    fs::remove_dir_all(path).map_err(failed(path))?;
    tracing::info!(path = %path.display(), "removed an unfinished golden snapshot of an earlier process");
    Ok(())
}

fn is_ours(file: &File, mark: &Path) -> io::Result<bool> {
    let (opened, named) = (file.metadata()?, mark.symlink_metadata()?);
    let same = (opened.dev(), opened.ino()) == (named.dev(), named.ino());
    Ok(same && opened.is_file() && opened.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_mint_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("golden");

        let folder = Folder::create(&path).unwrap();
        let error = Folder::create(&path).unwrap_err();
        assert!(matches!(error, MintError::InUse { .. }), "{error}");
        drop(folder);
        assert!(!path.exists());

        // As a killed process leaves it: the file is there, and the lock is not.
        fs::create_dir(&path).unwrap();
        fs::write(path.join(IN_THE_MAKING), "").unwrap();
        fs::write(path.join("overlay.img"), "half").unwrap();
        let folder = Folder::create(&path).unwrap();
        assert!(!path.join("overlay.img").exists());
        fs::write(path.join(manifest::FILE), "{}").unwrap();
        folder.keep();
        let names: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [manifest::FILE]);

        let refused = |what: &str| {
            let error = Folder::create(&path).unwrap_err();
            assert!(matches!(error, MintError::Exists { .. }), "{what}: {error}");
        };
        refused("a golden snapshot");
        fs::write(path.join(IN_THE_MAKING), "").unwrap();
        refused("a golden snapshot whose maker died at its last step");
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused("an empty folder");
        fs::write(path.join("file"), "").unwrap();
        refused("somebody's folder");
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "").unwrap();
        refused("a file");
    }

    #[test]
    fn a_parent_that_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = Folder::create(&directory.path().join("missing/golden")).unwrap_err();
        assert!(matches!(error, MintError::Folder { .. }), "{error}");
    }
}
