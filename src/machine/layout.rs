//! [`Layout`]: the paths of one machine's files in its private directory, and the vsock socket, whose path is removed as
//! soon as a VM exists.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DiskRole, Error};
use crate::causes::Causes;
use crate::socket::SocketAddress;
use crate::vmm::{VSOCK_SOCKET, tail_of};

/// The console's file of a VMM that another program runs.
const CONSOLE: &str = "console.log";

/// The paths of one machine's files.
#[derive(Debug)]
pub(super) struct Layout {
    /// The directory in which the VMM may write.
    directory: PathBuf,
    /// The directory that the VMM may only read. It is the same as `directory` for a VMM that another program runs.
    readable: PathBuf,
    /// The path that the VMM opens for the VM's console.
    pub(super) console: PathBuf,
}

impl Layout {
    /// Uses `directory` for files that the VMM writes and `readable` for files that it only reads. Both paths must be
    /// UTF-8, since they are sent to the VMM as JSON.
    ///
    /// `console` is the path that a spawned VMM opens for the console, whose output this process reads and bounds. If
    /// it is `None`, as for a VMM that another program runs, the console is a file in `directory`.
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

    /// The copy of a writable disk, for a VMM that does not inherit its disks.
    pub(super) fn disk(&self, role: DiskRole) -> PathBuf {
        self.directory.join(format!("{role}.img"))
    }

    /// The folder of this machine's copy of the snapshot, whose `config.json` has the paths of this machine's files.
    pub(super) fn snapshot(&self) -> PathBuf {
        self.readable.join("snapshot")
    }

    /// Holds the socket that the VMM has bound for its VM and removes its path, so that no other process can connect to
    /// it. If the VM has ended already, there is no socket. Then the path is returned, and connecting to it fails.
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

    /// The end of the console's file of a VMM that another program runs.
    pub(super) fn console_tail(&self) -> String {
        tail_of(&self.directory.join(CONSOLE))
            .unwrap_or_else(|error| format!("(the console cannot be read: {error})"))
    }

    fn files(&self) -> [PathBuf; 4] {
        [
            self.vsock(),
            self.directory.join(CONSOLE),
            self.disk(DiskRole::Root),
            self.disk(DiskRole::Overlay),
        ]
    }

    /// Returns the first path of the machine's files at which a file or folder exists.
    pub(super) fn present(&self) -> Option<PathBuf> {
        let mut names = self.files().into_iter().chain([self.snapshot()]);
        names.find(|path| path.symlink_metadata().is_ok())
    }

    /// Removes the files that the machine wrote. The directory of a spawned VMM was removed before. The directory of a
    /// VMM that another program runs stays, since the caller made it.
    pub(super) fn remove(&self) {
        let files = self.files();
        let removed = files.iter().map(fs::remove_file);
        for result in removed.chain([fs::remove_dir_all(self.snapshot())]) {
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let directory = self.directory.display();
                    tracing::warn!(%directory, error = %Causes(&error), "cannot remove a file of the machine");
                }
                _ => {}
            }
        }
    }
}

/// Returns `path` as text for a JSON body. `what` names its purpose in the error.
pub(super) fn utf8<'a>(what: &'static str, path: &'a Path) -> Result<&'a str, Error> {
    path.to_str().ok_or_else(|| Error::NotUtf8 {
        what,
        path: path.to_owned(),
    })
}
