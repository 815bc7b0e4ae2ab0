//! The files of one machine, by name, in its own private directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DiskRole, Error};
use crate::causes::Causes;
use crate::socket::SocketAddress;
use crate::vmm::{VSOCK_SOCKET, tail_of};

/// The file of the console of a VMM that another program runs.
const CONSOLE: &str = "console.log";

/// Names the files of one machine.
#[derive(Debug)]
pub(super) struct Layout {
    /// What the VMM may write.
    directory: PathBuf,
    /// What it may only read; the same directory, where that isn't kept apart.
    readable: PathBuf,
    /// What the VMM is told to open for the VM's console.
    pub(super) console: PathBuf,
}

impl Layout {
    /// Uses `directory` for what the VMM writes and `readable` for what it only reads. Their paths have to be UTF-8 since
    /// they go into the VMM's JSON.
    ///
    /// `console` is what a spawned VMM opens for it, and keeps bounded. One that another program runs is given a file.
    pub(super) fn new(
        directory: PathBuf,
        readable: PathBuf,
        console: Option<&Path>,
    ) -> Result<Self, Error> {
        for directory in [&directory, &readable] {
            utf8("machine's directory", directory)?;
        }
        let console = console.map_or_else(|| directory.join(CONSOLE), Path::to_owned);
        Ok(Layout {
            directory,
            readable,
            console,
        })
    }

    pub(super) fn vsock(&self) -> PathBuf {
        self.directory.join(VSOCK_SOCKET)
    }

    /// The working copy of a writable disk, for a VMM that inherits none.
    pub(super) fn disk(&self, role: DiskRole) -> PathBuf {
        self.directory.join(format!("{role}.img"))
    }

    /// The snapshot as this machine sees it: the paths in its description are the machine's own.
    pub(super) fn snapshot(&self) -> PathBuf {
        self.readable.join("snapshot")
    }

    /// Holds the socket that the VMM has bound for its VM, and takes its name away, so that nothing else connects to it.
    /// There is none if the VM has ended already; what the name would lead to fails then.
    pub(super) fn hold_vsock(&self) -> Result<SocketAddress, Error> {
        let path = self.vsock();
        match SocketAddress::hold(&path) {
            Ok(held) => {
                self.remove_vsock()?;
                Ok(held)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.into()),
            Err(error) => Err(Error::file("hold", path)(error)),
        }
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
    /// since the caller made it.
    pub(super) fn remove(&self) {
        let files = self.files();
        let removed = files.iter().map(fs::remove_file);
        for result in removed.chain([fs::remove_dir_all(self.snapshot())]) {
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(directory = %self.directory.display(), error = %Causes(&error), "a file of the machine stays");
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
