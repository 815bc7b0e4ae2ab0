//! The address of a Unix socket: a path, or a descriptor of a socket that has no name any more.
//!
//! A name can be given to another socket, and everything that may look at its directory may connect to it. A socket that
//! is held by an `O_PATH` descriptor and has lost its name is reached through `/proc/self/fd`, by this process alone.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

/// The address of a Unix socket. Made from a path, it is that path.
#[derive(Clone)]
pub struct SocketAddress {
    /// The name that the socket has, or had.
    name: PathBuf,
    held: Option<Held>,
}

#[derive(Clone)]
struct Held {
    path: PathBuf,
    /// Keeps the number in the path.
    _descriptor: Arc<OwnedFd>,
}

impl SocketAddress {
    /// Holds the socket that has this name now, whatever becomes of the name.
    ///
    /// # Errors
    ///
    /// What the kernel says; kind `InvalidInput` where there is no socket but something else, a symbolic link for one.
    pub fn hold(name: impl Into<PathBuf>) -> io::Result<Self> {
        let name = name.into();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(&name, flags, Mode::empty())?;
        let kind = rustix::fs::fstat(&descriptor)?.st_mode & libc::S_IFMT;
        if kind != libc::S_IFSOCK {
            let reason = "it is no socket";
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

    /// What to connect to. Of a socket that is held, it means this process's descriptor, and only as long as this or a clone
    /// lives.
    pub fn path(&self) -> &Path {
        match &self.held {
            Some(held) => &held.path,
            None => &self.name,
        }
    }

    /// The name that the socket has, or had: for people.
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
    fn what_is_no_socket_is_not_held() {
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
