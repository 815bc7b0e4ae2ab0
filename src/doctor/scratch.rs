//! [`Scratch`]: a temporary directory for trials.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::causes::Causes;
use crate::files::{create_private, create_private_directory, write_private};

/// A new private directory, removed on drop with what is in it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Creates it in the directory `parent`. Its name is shorter than that of a run directory, so a socket path fits
    /// wherever that of a VMM does.
    pub(super) fn create(parent: &Path) -> io::Result<Scratch> {
        let name = format!(".chv-{:08x}", Uuid::new_v4().as_fields().0);
        let path = parent.join(name);
        create_private_directory(&path)?;
        Ok(Scratch(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Creates a file with one block of data, syncs it to the disk, and closes it.
    pub(super) fn file(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        write_private(&path, &[1; 4096])?.sync_all()?;
        Ok(path)
    }

    /// Creates an empty file, open for writing.
    pub(super) fn empty_file(&self, name: &str) -> io::Result<File> {
        create_private(&self.0.join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), error = %Causes(&error), "could not remove the directory of a trial");
        }
    }
}
