//! A file in the making, in the directory where it will have its name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use uuid::Uuid;

use super::{Error, FileIdentity};

/// A new, empty file of mode 0600 with a temporary name, removed on drop unless it was given its own.
///
/// It is locked (`flock`) until then. That tells it from what a process that was killed has left, which the next
/// one in the same directory removes.
#[derive(Debug)]
pub(super) struct Beside {
    file: File,
    path: PathBuf,
}

const PREFIX: &str = ".chv-sandbox-";
const SUFFIX: &str = ".copy";

impl Beside {
    /// Makes the file in `directory`, after removing what earlier ones left there.
    pub(super) fn create(directory: &Path) -> Result<Beside, Error> {
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
            let beside = Beside { file, path };
            match beside.file.try_lock() {
                Ok(()) if beside.has_its_name() => return Ok(beside),
                // Another process took it for a leftover before it was locked: again, by another name.
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(Error::io("lock", &beside.path)(error));
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

    /// Gives the file its name, replacing what has that name, in one step.
    pub(super) fn replace(self, path: &Path) -> Result<(), Error> {
        fs::rename(&self.path, path).map_err(Error::io("replace", path))
    }

    /// Gives the file its name, unless something has that name.
    pub(super) fn place(self, path: &Path) -> Result<(), Error> {
        fs::hard_link(&self.path, path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::AlreadyExists {
                path: path.to_owned(),
            },
            _ => Error::io("create", path)(error),
        })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Ok(()) => {}
            // It was renamed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "an unfinished copy stays behind");
            }
        }
    }
}

/// Removes the unfinished copies whose maker is gone. One that can't be looked at or removed is left, as it harms
/// nobody; only a directory that can't be read is an error.
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
    // Whoever makes it holds the lock until it has its own name, and then it no longer has this one.
    if !ours || file.try_lock().is_err() {
        return Ok(false);
    }
    fs::remove_file(path).map(|()| true)
}
