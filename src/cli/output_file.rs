//! [`OutputFile`]: an output file that is written completely or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::cli::Failure;

/// An output file. It gets its name once it is complete, and then replaces a file of that name; only this user can read
/// it. If this is dropped before, nothing is left.
pub(crate) struct OutputFile {
    path: PathBuf,
    sibling: NamedTempFile,
}

impl OutputFile {
    /// Checks that `path` can be written, by creating a temporary file beside it.
    pub(crate) fn prepare(path: &Path) -> Result<OutputFile, Failure> {
        let path = std::path::absolute(path)?;
        let shown = path.display();
        if path.is_dir() {
            return Err(format!("cannot write {shown}: it is a directory").into());
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        let sibling = NamedTempFile::with_prefix_in(".chv-", directory);
        let sibling = sibling.map_err(|error| format!("cannot write {shown}: {error}"))?;
        Ok(OutputFile { path, sibling })
    }

    pub(crate) fn write(mut self, bytes: &[u8]) -> Result<(), Failure> {
        let shown = self.path.display();
        let written = self.sibling.write_all(bytes);
        let synced = written.and_then(|()| self.sibling.as_file().sync_all());
        synced.map_err(|error| format!("cannot write {shown}: {error}"))?;
        let renamed = self.sibling.persist(&self.path);
        renamed.map_err(|error| format!("cannot write {shown}: {}", error.error))?;
        Ok(())
    }
}
