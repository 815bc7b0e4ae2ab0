//! [`Place`]: the directory for the demo's files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::cli::Failure;

/// A new private directory. It is removed on drop, unless [`settle`](Self::settle) or [`keep`](Self::keep) was called
/// for it.
pub(super) struct Place {
    path: PathBuf,
    /// Whether the user named it with `--directory`, and so expects to find it.
    named: bool,
    stays: bool,
}

impl Place {
    /// Creates `directory`, which must not exist yet, or a temporary directory.
    pub(super) fn new(directory: Option<&Path>) -> Result<Self, Failure> {
        let path = match directory {
            // A mint resolves symbolic links in paths, but the recording holds the paths as they were given.
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

    /// Whether the directory is still there after a demo that passed.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// Call this when the demo was completed: a directory that the user named is kept.
    pub(super) fn settle(&mut self) {
        self.stays |= self.named;
    }

    /// Keeps the directory, even a temporary one.
    pub(super) fn keep(&mut self) {
        self.stays = true;
    }

    /// Creates a private directory in it.
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
        // A thread that still copies for an interrupted demo may create one file during the removal, so a failure is
        // tried once more.
        let removed = fs::remove_dir_all(&self.path).or_else(|_| fs::remove_dir_all(&self.path));
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!(
                "warning: {} could not be removed: {error}",
                self.path.display()
            );
        }
    }
}
