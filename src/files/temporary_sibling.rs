//! [`TemporarySibling`]: a file under a temporary name, in the directory where it gets its final name once it is
//! complete. [`replace_file`] uses one for a small file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
#[cfg(any(test, feature = "replay", feature = "spec"))]
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use uuid::Uuid;

use super::{Symlinks, is_at, open_for_reading};
use crate::causes::Causes;

/// A failed operation on a temporary sibling, its directory or its target.
#[derive(Debug, thiserror::Error)]
#[error("could not {operation} {path:?}")]
pub(crate) struct FileError {
    /// The operation that was attempted, as a verb.
    pub(crate) operation: &'static str,
    /// The file or directory of the operation.
    pub(crate) path: PathBuf,
    /// The system's error.
    pub(crate) source: io::Error,
}

impl FileError {
    /// For `map_err`: wraps the system's error for an operation on `path`.
    fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        move |source| FileError {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}

/// Replaces the file at `path` atomically by one with `bytes`, so that a reader never sees a part. Creates it if it is
/// missing. Returns once the bytes are on the disk; the new name is not synced. After an error the path is unchanged.
///
/// `mode` is the mode of the new file, less the bits of the umask.
///
/// # Errors
///
/// The system's error, without a path.
#[cfg(any(test, feature = "replay", feature = "spec"))]
pub(crate) fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let sibling = TemporarySibling::with_mode(directory_of(path), mode).map_err(|e| e.source)?;
    sibling.file().write_all(bytes)?;
    sibling.file().sync_all()?;
    fs::rename(sibling.path(), path)
}

/// The directory that holds `path`. A bare name lies in the current one.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A new, empty file with a temporary name. It is removed on drop, unless it was given its final name.
///
/// It is locked (`flock`) until then. So a temporary file without a lock was left by a process that was killed, and
/// [`create`](Self::create) removes such files from the directory.
#[derive(Debug)]
pub(crate) struct TemporarySibling {
    file: File,
    path: PathBuf,
}

const PREFIX: &str = ".chv-sandbox-";
const SUFFIX: &str = ".copy";

impl TemporarySibling {
    /// Creates the file in `directory` with mode 0600, after removing the temporary files that killed processes left
    /// there.
    pub(crate) fn create(directory: &Path) -> Result<TemporarySibling, FileError> {
        TemporarySibling::with_mode(directory, 0o600)
    }

    fn with_mode(directory: &Path, mode: u32) -> Result<TemporarySibling, FileError> {
        remove_leftovers(directory)
            .map_err(FileError::at("remove unfinished copies from", directory))?;
        loop {
            let path = directory.join(format!("{PREFIX}{}{SUFFIX}", Uuid::new_v4().simple()));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)
                .map_err(FileError::at("create", &path))?;
            let sibling = TemporarySibling { file, path };
            match sibling.file.try_lock() {
                Ok(()) if is_at(&sibling.file, &sibling.path).unwrap_or(false) => {
                    return Ok(sibling);
                }
                // Another process took the file for a leftover before it was locked: try again under another name.
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(FileError::at("lock", &sibling.path)(error));
                }
            }
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the name, and returns the file, which has no name from now on.
    pub(crate) fn into_nameless(self) -> Result<File, FileError> {
        fs::remove_file(&self.path).map_err(FileError::at("remove the name of", &self.path))?;
        let file = self.file.try_clone();
        let file = file.map_err(FileError::at("keep open", &self.path))?;
        file.unlock().map_err(FileError::at("unlock", &self.path))?;
        Ok(file)
    }

    /// Gives the file its final name, atomically replacing the regular file that has that name.
    ///
    /// The two names are exchanged, and dropping this removes the old file: on ext4 a plain rename over a file waits
    /// until the blocks of the new file are allocated and submitted to the disk, which takes longer for a large overlay
    /// than writing it did.
    pub(crate) fn replace(self, path: &Path) -> Result<(), FileError> {
        match renameat_with(CWD, &self.path, CWD, path, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            // No file has that name yet, or the filesystem doesn't support an exchange.
            Err(_) => fs::rename(&self.path, path).map_err(FileError::at("replace", path)),
        }
    }

    /// Gives the file its final name, and fails with the kind `AlreadyExists` if a file has that name.
    pub(crate) fn place(self, path: &Path) -> Result<(), FileError> {
        fs::hard_link(&self.path, path).map_err(FileError::at("create", path))
    }
}

impl Drop for TemporarySibling {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Ok(()) => {}
            // The file was renamed to its final name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %self.path.display(), error = %Causes(&error), "could not remove an unfinished copy");
            }
        }
    }
}

/// Removes the unfinished copies of processes that have ended. A copy that can't be opened or removed stays, because it
/// does no harm. Fails only if the directory can't be read.
fn remove_leftovers(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(is_temporary_name) {
            continue;
        }
        let path = entry.path();
        if remove_if_abandoned(&path).unwrap_or(false) {
            tracing::info!(path = %path.display(), "removed an unfinished copy of an earlier run");
        }
    }
    Ok(())
}

fn is_temporary_name(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX))
        .is_some_and(|middle| Uuid::try_parse(middle).is_ok())
}

fn remove_if_abandoned(path: &Path) -> io::Result<bool> {
    let file = open_for_reading(path, Symlinks::Refuse)?;
    let metadata = file.metadata()?;
    let ours = metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw();
    // A process that is writing the copy holds the lock until it has renamed the copy, so no live copy is unlocked
    // under this name.
    if !ours || file.try_lock().is_err() {
        return Ok(false);
    }
    fs::remove_file(path).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_removed_unless_it_was_given_its_final_name() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        drop(TemporarySibling::create(here).unwrap());
        assert_eq!(names(here), [""; 0]);
        let name = here.join("name");
        TemporarySibling::create(here)
            .unwrap()
            .place(&name)
            .unwrap();
        assert_eq!(names(here), ["name"]);
        let error = TemporarySibling::create(here)
            .unwrap()
            .place(&name)
            .unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists, "{error}");
        TemporarySibling::create(here)
            .unwrap()
            .replace(&name)
            .unwrap();
        let other = here.join("other");
        TemporarySibling::create(here)
            .unwrap()
            .replace(&other)
            .unwrap();
        assert_eq!(names(here), ["name", "other"]);
    }

    #[test]
    fn leftovers_are_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let abandoned = {
            let sibling = TemporarySibling::create(here).unwrap();
            fs::hard_link(sibling.path(), here.join("kept")).unwrap();
            sibling.path().to_owned()
        };
        fs::rename(here.join("kept"), abandoned).unwrap();
        let not_ours = [
            ".chv-sandbox-.copy",
            ".chv-sandbox-notes.copy",
            "overlay.img",
        ];
        for name in not_ours {
            fs::write(here.join(name), "").unwrap();
        }
        let in_the_making = TemporarySibling::create(here).unwrap();
        let another = TemporarySibling::create(here).unwrap();
        for sibling in [&in_the_making, &another] {
            assert!(is_at(sibling.file(), sibling.path()).unwrap());
        }
        drop((in_the_making, another));
        assert_eq!(names(here), not_ours);
    }

    #[test]
    fn a_small_file_is_replaced_whole_with_the_mode_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let path = here.join("name");
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        for (bytes, wanted) in [(&b""[..], 0o600), (b"old", 0o640), (&[7; 100_000], 0o600)] {
            replace_file(&path, bytes, wanted).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            // The umask may take bits away.
            assert_eq!(mode(&path) & !wanted, 0);
        }
        assert_eq!(mode(&path), 0o600);
        let link = here.join("link");
        std::os::unix::fs::symlink("name", &link).unwrap();
        replace_file(&link, b"new", 0o600).unwrap();
        assert!(link.symlink_metadata().unwrap().is_file());
        assert_eq!(fs::read(&path).unwrap(), [7; 100_000]);
        assert_eq!(names(here), ["link", "name"]);
    }

    #[test]
    fn a_directory_is_not_replaced_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let path = here.join("directory");
        fs::create_dir(&path).unwrap();
        replace_file(&path, b"new", 0o600).unwrap_err();
        replace_file(&here.join("missing/name"), b"new", 0o600).unwrap_err();
        assert!(path.is_dir());
        assert_eq!(names(here), ["directory"]);
    }

    #[test]
    fn a_bare_name_lies_in_the_current_directory() {
        let check = |path: &str, expected: &str| {
            assert_eq!(directory_of(path.as_ref()), Path::new(expected), "{path}");
        };
        check("name", ".");
        check("a/name", "a");
        check("/name", "/");
        check("/", ".");
        check("", ".");
    }
}
