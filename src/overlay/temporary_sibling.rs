//! [`TemporarySibling`]: a file under a temporary name, in the directory where it gets its final name once it is
//! complete.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use uuid::Uuid;

use super::{Error, FileIdentity};
use crate::causes::Causes;

/// A new, empty file of mode 0600 with a temporary name. It is removed on drop, unless it was given its final name.
///
/// It is locked (`flock`) until then. So a temporary file without a lock was left by a process that was killed, and
/// [`create`](Self::create) removes such files from the directory.
#[derive(Debug)]
pub(super) struct TemporarySibling {
    file: File,
    path: PathBuf,
}

const PREFIX: &str = ".chv-sandbox-";
const SUFFIX: &str = ".copy";

impl TemporarySibling {
    /// Creates the file in `directory`, after removing the temporary files that killed processes left there.
    pub(super) fn create(directory: &Path) -> Result<TemporarySibling, Error> {
        remove_leftovers(directory)
            .map_err(Error::io("remove unfinished copies from", directory))?;
        loop {
            let path = directory.join(format!("{PREFIX}{}{SUFFIX}", Uuid::new_v4().simple()));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(Error::io("create", &path))?;
            let sibling = TemporarySibling { file, path };
            match sibling.file.try_lock() {
                Ok(()) if sibling.has_its_name() => return Ok(sibling),
                // Another process took the file for a leftover before it was locked: try again under another name.
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(Error::io("lock", &sibling.path)(error));
                }
            }
        }
    }

    fn has_its_name(&self) -> bool {
        match (self.path.symlink_metadata(), self.file.metadata()) {
            (Ok(named), Ok(opened)) => FileIdentity::from(&named) == FileIdentity::from(&opened),
            _ => false,
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the name, and returns the file, which has no name from now on.
    pub(super) fn into_nameless(self) -> Result<File, Error> {
        fs::remove_file(&self.path).map_err(Error::io("remove the name of", &self.path))?;
        let file = self.file.try_clone();
        let file = file.map_err(Error::io("keep open", &self.path))?;
        file.unlock().map_err(Error::io("unlock", &self.path))?;
        Ok(file)
    }

    /// Gives the file its final name, atomically replacing the file that has that name.
    ///
    /// The two names are exchanged, and dropping this removes the old file: on ext4 a plain rename over a file waits
    /// until the blocks of the new file are allocated and submitted to the disk, which takes longer for a large overlay
    /// than writing it did.
    pub(super) fn replace(self, path: &Path) -> Result<(), Error> {
        match renameat_with(CWD, &self.path, CWD, path, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            // No file has that name yet, or the filesystem doesn't support an exchange.
            Err(_) => fs::rename(&self.path, path).map_err(Error::io("replace", path)),
        }
    }

    /// Gives the file its final name, and fails if a file has that name.
    pub(super) fn place(self, path: &Path) -> Result<(), Error> {
        fs::hard_link(&self.path, path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::AlreadyExists {
                path: path.to_owned(),
            },
            _ => Error::io("create", path)(error),
        })
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
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)?;
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
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
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
        assert!(in_the_making.has_its_name() && another.has_its_name());
        drop((in_the_making, another));
        assert_eq!(names(here), not_ours);
    }
}
