//! The files of one machine, by name, in its own private directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DiskRole, Error};
use crate::vmm::{VSOCK_SOCKET, tail_of};

/// The file of the console of a VMM that somebody else runs.
const CONSOLE: &str = "console.log";

/// Names the files of one machine.
#[derive(Debug)]
pub(super) struct Layout {
    directory: PathBuf,
    /// What the VMM is told to open for the VM's console.
    pub(super) console: PathBuf,
}

impl Layout {
    /// Uses `directory`, whose path has to be UTF-8 since it goes into the VMM's JSON.
    ///
    /// `console` is what a spawned VMM opens for it, and keeps bounded. One that somebody else runs is given a file.
    pub(super) fn new(directory: PathBuf, console: Option<&Path>) -> Result<Self, Error> {
        utf8("machine's directory", &directory)?;
        let console = console.map_or_else(|| directory.join(CONSOLE), Path::to_owned);
        Ok(Layout { directory, console })
    }

    pub(super) fn vsock(&self) -> PathBuf {
        self.directory.join(VSOCK_SOCKET)
    }

    pub(super) fn disk(&self, role: DiskRole) -> PathBuf {
        self.directory.join(format!("{role}.img"))
    }

    /// The snapshot as this machine sees it: the paths in its description are the machine's own.
    pub(super) fn snapshot(&self) -> PathBuf {
        self.directory.join("snapshot")
    }

    pub(super) fn remove_vsock(&self) -> Result<(), Error> {
        let path = self.vsock();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// The end of the file that [`CONSOLE`] names.
    pub(super) fn console_tail(&self) -> String {
        tail_of(&self.directory.join(CONSOLE))
            .unwrap_or_else(|error| format!("(no console: {error})"))
    }

    fn files(&self) -> [PathBuf; 4] {
        [
            self.vsock(),
            self.directory.join(CONSOLE),
            self.disk(DiskRole::Root),
            self.disk(DiskRole::Overlay),
        ]
    }

    /// Something that has a name that the machine would use.
    pub(super) fn present(&self) -> Option<PathBuf> {
        let mut names = self.files().into_iter().chain([self.snapshot()]);
        names.find(|path| path.symlink_metadata().is_ok())
    }

    /// Removes what the machine wrote. A spawned VMM's directory is gone already; an attached one's stays,
    /// since somebody else made it.
    pub(super) fn remove(&self) {
        let files = self.files();
        let removed = files.iter().map(fs::remove_file);
        for result in removed.chain([fs::remove_dir_all(self.snapshot())]) {
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(directory = %self.directory.display(), %error, "a file of the machine stays");
                }
                _ => {}
            }
        }
    }
}

/// `path` as it goes into a JSON body.
pub(super) fn utf8<'a>(what: &'static str, path: &'a Path) -> Result<&'a str, Error> {
    path.to_str().ok_or_else(|| Error::NotUtf8 {
        what,
        path: path.to_owned(),
    })
}
