//! Where the demo leaves its files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::cli::Failure;

/// A new private folder. Dropped, it is removed, unless it is to stay.
pub(super) struct Place {
    path: PathBuf,
    /// Whether the person named it, and expects to find it.
    named: bool,
    stays: bool,
}

impl Place {
    /// The folder `directory`, which must not exist yet, or else a temporary one.
    pub(super) fn new(directory: Option<&Path>) -> Result<Self, Failure> {
        let path = match directory {
            // A mint resolves links, and the recording has the paths as they are given.
            None => fs::canonicalize(TempDir::with_prefix("chv-demo-")?.keep())?,
            Some(path) => {
                let path = std::path::absolute(path)?;
                let made = DirBuilder::new().mode(0o700).create(&path);
                made.map_err(|error| format!("cannot create {}: {error}", path.display()))?;
                path
            }
        };
        Ok(Place {
            path,
            named: directory.is_some(),
            stays: false,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a person finds the folder when the demo has come to its end.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// The demo came to its end: a folder that was named stays.
    pub(super) fn settle(&mut self) {
        self.stays |= self.named;
    }

    /// The folder stays, also a temporary one.
    pub(super) fn keep(&mut self) {
        self.stays = true;
    }

    /// A new private folder in it.
    pub(super) fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        // A thread that copies for an interrupted demo may make a file meanwhile; it makes one.
        let removed = fs::remove_dir_all(&self.path).or_else(|_| fs::remove_dir_all(&self.path));
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!("warning: {} stays: {error}", self.path.display());
        }
    }
}
