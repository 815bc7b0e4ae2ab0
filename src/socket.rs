//! [`SocketAddress`]: the address of a Unix socket, which is a path or a descriptor of a socket whose path was removed.
//!
//! A path can be given to another socket, and every process that may search its directory can connect through it. A
//! socket that this process holds by an `O_PATH` descriptor and whose path was removed is reached through
//! `/proc/self/fd`, by this process alone.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

/// The address of a Unix socket: a path (`From<PathBuf>` and similar), or a held socket ([`hold`](Self::hold)).
#[derive(Clone)]
pub struct SocketAddress {
    /// The path that the socket has, or had.
    name: PathBuf,
    held: Option<Held>,
}

#[derive(Clone)]
struct Held {
    path: PathBuf,
    /// Keeps the descriptor's number, which `path` contains, in use.
    _descriptor: Arc<OwnedFd>,
}

impl SocketAddress {
    /// Opens the socket that is at the path `name` now. The address stays that of this socket even if the path is
    /// removed or given to another file.
    ///
    /// # Errors
    ///
    /// The kernel's error if the path can't be opened; kind `InvalidInput` if the path leads to something that isn't a
    /// socket, which includes a symbolic link to a socket.
    pub fn hold(name: impl Into<PathBuf>) -> io::Result<Self> {
        let name = name.into();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(&name, flags, Mode::empty())?;
        let kind = rustix::fs::fstat(&descriptor)?.st_mode & libc::S_IFMT;
        if kind != libc::S_IFSOCK {
            let reason = "the file is not a socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd()).into();
        let held = Held {
            path,
            _descriptor: Arc::new(descriptor),
        };
        Ok(SocketAddress {
            name,
            held: Some(held),
        })
    }

    /// The path to connect to. For a held socket it is `/proc/self/fd/N`, which is valid only in this process, and only
    /// as long as this address or a clone of it exists.
    pub fn path(&self) -> &Path {
        match &self.held {
            Some(held) => &held.path,
            None => &self.name,
        }
    }

    /// The path that the socket has, or had before the path was removed. It serves messages only; connect to
    /// [`path`](Self::path).
    pub fn name(&self) -> &Path {
        &self.name
    }
}

impl From<PathBuf> for SocketAddress {
    fn from(name: PathBuf) -> Self {
        SocketAddress { name, held: None }
    }
}

impl From<&Path> for SocketAddress {
    fn from(name: &Path) -> Self {
        name.to_owned().into()
    }
}

impl From<&PathBuf> for SocketAddress {
    fn from(name: &PathBuf) -> Self {
        name.clone().into()
    }
}

impl From<&str> for SocketAddress {
    fn from(name: &str) -> Self {
        PathBuf::from(name).into()
    }
}

impl From<String> for SocketAddress {
    fn from(name: String) -> Self {
        PathBuf::from(name).into()
    }
}

impl fmt::Debug for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_socket_that_is_held_is_reached_without_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("socket");
        let listener = UnixListener::bind(&name).unwrap();
        let held = SocketAddress::hold(&name).unwrap();
        fs::remove_file(&name).unwrap();
        // Another one takes the name.
        let other = UnixListener::bind(&name).unwrap();
        other.set_nonblocking(true).unwrap();

        let _connection = UnixStream::connect(held.path()).unwrap();
        listener.accept().unwrap();
        assert_eq!(
            other.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert_eq!(held.name(), name);
    }

    #[test]
    fn hold_refuses_everything_but_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("socket");
        let hold = || SocketAddress::hold(&name).unwrap_err().kind();
        assert_eq!(hold(), io::ErrorKind::NotFound);
        let elsewhere = folder.path().join("elsewhere");
        let _listener = UnixListener::bind(&elsewhere).unwrap();
        symlink(&elsewhere, &name).unwrap();
        assert_eq!(hold(), io::ErrorKind::InvalidInput);
        fs::remove_file(&name).unwrap();
        fs::write(&name, "").unwrap();
        assert_eq!(hold(), io::ErrorKind::InvalidInput);
    }
}
