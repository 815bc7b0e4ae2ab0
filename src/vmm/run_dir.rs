//! [`RunDir`]: the private directory of one VMM, with the lock that shows whether its agent is alive.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use super::remove::remove_tree;
use super::{Error, beyond_streams};
use crate::causes::Causes;
use crate::files::{create_private_directory, is_at, open_lock_file};
use crate::socket::SocketAddress;

/// The file name of the VM's vsock socket in the [writable](super::Vmm::writable_dir) folder. The VMM binds the socket
/// when it is told to; a spawn does not create it.
pub const VSOCK_SOCKET: &str = "vsock.sock";

const API_SOCKET: &str = "api.sock";
const CONSOLE: &str = "console.log";
const LOCK: &str = "lock";
const LOG: &str = "vmm.log";
const RECORD: &str = "vmm.json";
const STAT: &str = "vmm.stat";
/// The folder that the VMM may write.
const WRITABLE: &str = "rw";
/// The folder that the VMM may only read.
const READABLE: &str = "ro";

/// The kernel's limit on the length of a socket's path, in bytes, including the zero byte at its end (`sun_path`).
pub(super) const SOCKET_PATH_LIMIT: usize = 108;

/// The number of connections that may wait to be accepted. A VMM serves ten at a time.
const BACKLOG: i32 = 128;

/// How long the removal of a run directory may take after the end of its VMM.
const REMOVAL_LIMIT: Duration = Duration::from_secs(5);

/// How often the creation of a run directory is tried. An attempt fails if the random name exists already, or if
/// another agent removes the directory before it is locked. Both are very rare, so this many failures in a row show
/// another problem.
const ATTEMPTS: usize = 16;

/// The two folders of a run directory that its VMM may open. The other files of a run directory are the agent's.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    /// The folder that the VMM may write: its sockets and its disks.
    pub(super) writable: PathBuf,
    /// The folder that the VMM may only read: the snapshot that it restores.
    pub(super) readable: PathBuf,
}

/// A run directory that this process has locked.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    folders: Folders,
    /// Locked while this process is running. The VMM does not inherit the lock: if the VMM survives the agent, the next
    /// start must find the lock free.
    _lock: Lock,
}

/// A run directory that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct RemovedOnDrop(RunDir);

impl RunDir {
    /// Creates a run directory with a new random name below `root`, and locks it.
    pub(super) fn create(root: &Path) -> Result<RemovedOnDrop, Error> {
        for _ in 0..ATTEMPTS {
            let path = root.join(new_name());
            check_length(&path)?;
            match create_private_directory(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => {
                    return Err(Error::run_dir("create the run directory", &path)(source));
                }
            }
            // Another agent may remove the directory before it is locked. Then another name is tried.
            match lock(&path) {
                Ok(Some(lock)) => {
                    let run_dir = RemovedOnDrop(RunDir::of(path, lock));
                    let Folders { writable, readable } = &run_dir.folders;
                    for folder in [writable, readable] {
                        let made = create_private_directory(folder);
                        made.map_err(Error::run_dir("create the folder", folder))?;
                    }
                    return Ok(run_dir);
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    let removed = remove_tree(&path, Instant::now() + REMOVAL_LIMIT);
                    if let Err(error) = removed {
                        let path = path.display();
                        tracing::warn!(%path, error = %Causes(&error), "cannot remove a run directory");
                    }
                    return Err(Error::run_dir("lock the run directory", &path)(source));
                }
            }
        }
        Err(Error::RunRoot {
            path: root.to_owned(),
            problem: "new run directories are removed from it at once",
            source: None,
        })
    }

    /// Takes over the run directory of another agent by locking it. Returns `None` if that agent is alive, or if
    /// another process takes the directory over.
    pub(super) fn take_over(path: &Path) -> io::Result<Option<RunDir>> {
        Ok(lock(path)?.map(|lock| RunDir::of(path.to_owned(), lock)))
    }

    fn of(path: PathBuf, lock: Lock) -> RunDir {
        let folders = Folders {
            writable: path.join(WRITABLE),
            readable: path.join(READABLE),
        };
        RunDir {
            path,
            folders,
            _lock: lock,
        }
    }

    /// Whether `name` has the form of the names that [`create`](RunDir::create) gives.
    pub(super) fn is_name(name: &OsStr) -> bool {
        name.as_bytes().strip_prefix(b"vmm-").is_some_and(|random| {
            random.len() == 16
                && random
                    .iter()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn api_socket(&self) -> PathBuf {
        self.path.join(API_SOCKET)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    pub(super) fn console(&self) -> PathBuf {
        self.path.join(CONSOLE)
    }

    pub(super) fn record(&self) -> PathBuf {
        self.path.join(RECORD)
    }

    pub(super) fn stat(&self) -> PathBuf {
        self.path.join(STAT)
    }

    /// The directory's file name, which marks its processes and is part of its control group's name.
    pub(super) fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    pub(super) fn folders(&self) -> &Folders {
        &self.folders
    }

    /// The name of the VMM's control group.
    pub(super) fn cgroup_name(&self) -> String {
        format!("chv-sandbox-{}", self.name().to_string_lossy())
    }

    /// Binds the api-socket. Unless `keep_name` is set, it removes the socket's path before it listens, so that no
    /// other process can have connected.
    pub(super) fn bind_api_socket(
        &self,
        keep_name: bool,
    ) -> Result<(UnixListener, SocketAddress), Error> {
        let path = self.api_socket();
        let bind = || -> io::Result<(UnixListener, SocketAddress)> {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let socket = beyond_streams(socket)?;
            rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
            let address = SocketAddress::hold(&path)?;
            match keep_name {
                true => fs::set_permissions(&path, Permissions::from_mode(0o600))?,
                false => fs::remove_file(&path)?,
            }
            rustix::net::listen(&socket, BACKLOG)?;
            Ok((socket.into(), address))
        };
        bind().map_err(Error::run_dir("bind the api-socket", &path))
    }

    /// Removes the directory with its content, until `deadline`. Returns whether everything was removed. It may be
    /// called again.
    pub(super) fn try_remove(&self, deadline: Instant) -> io::Result<bool> {
        remove_tree(&self.path, deadline)
    }

    /// Removes the directory, and logs a warning if it can't be removed completely.
    pub(super) fn remove(&self) {
        let path = self.path.display();
        match self.try_remove(Instant::now() + REMOVAL_LIMIT) {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                %path, limit = ?REMOVAL_LIMIT,
                "a run directory contains more than can be removed in time; the next start continues"
            ),
            Err(error) => tracing::warn!(
                %path, error = %Causes(&error),
                "cannot remove a run directory; the next start tries again"
            ),
        }
    }
}

impl std::ops::Deref for RemovedOnDrop {
    type Target = RunDir;

    fn deref(&self) -> &RunDir {
        &self.0
    }
}

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        self.0.remove();
    }
}

fn new_name() -> String {
    format!("vmm-{:016x}", uuid::Uuid::new_v4().as_u64_pair().1)
}

/// Refuses a run root below which a socket's path would be too long for the kernel.
pub(super) fn check_root_length(root: &Path) -> Result<(), Error> {
    check_length(&root.join(new_name()))
}

/// Refuses a run directory in which a socket's path would be too long for the kernel.
fn check_length(run_dir: &Path) -> Result<(), Error> {
    // This is the longest path of a socket in the directory.
    let path = run_dir.join(WRITABLE).join(VSOCK_SOCKET);
    let length = path.as_os_str().len();
    if length < SOCKET_PATH_LIMIT {
        return Ok(());
    }
    Err(Error::PathTooLong {
        path,
        length,
        limit: SOCKET_PATH_LIMIT,
    })
}

/// Locks a run directory. Returns `None` if another agent has locked it, or has removed it in the meantime.
///
/// The lock belongs to the open file (flock), not to the process, so another attempt in this process fails as well.
fn lock(run_dir: &Path) -> io::Result<Option<Lock>> {
    let path = run_dir.join(LOCK);
    // The file is created by the agent that made the directory, or by another agent that is about to remove the
    // directory.
    let lock = open_lock_file(&path)?;
    if !lock.metadata()?.is_file() {
        return Err(io::Error::other("its lock is not a regular file"));
    }
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let lock = Lock(lock);
    // If the file was removed between open and lock, the lock has no effect.
    Ok(is_at(&lock.0, &path)?.then_some(lock))
}

/// A held lock. Dropping this releases it, even if a child that is about to exec has a copy of the descriptor.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.0, FlockOperation::Unlock) {
            tracing::warn!(error = %Causes(&error), "cannot release the lock of a run directory");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_lock_is_released_although_a_copy_of_its_descriptor_is_open() {
        let run_dir = tempfile::tempdir().unwrap();
        let first = lock(run_dir.path()).unwrap().unwrap();
        let _copy = first.0.try_clone().unwrap();
        assert!(lock(run_dir.path()).unwrap().is_none());
        drop(first);
        assert!(lock(run_dir.path()).unwrap().is_some());
    }

    #[test]
    fn a_run_directory_is_private_locked_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let run_dir = RunDir::create(root.path()).unwrap();
        let path = run_dir.path().to_owned();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;

        assert!(RunDir::is_name(path.file_name().unwrap()));
        assert_eq!(mode(&path), 0o700);
        for folder in [&run_dir.folders().writable, &run_dir.folders().readable] {
            assert_eq!(mode(folder), 0o700);
        }
        let (_listener, nameless) = run_dir.bind_api_socket(false).unwrap();
        assert!(!run_dir.api_socket().exists());
        UnixStream::connect(nameless.path()).unwrap();
        let (_listener, _) = run_dir.bind_api_socket(true).unwrap();
        assert_eq!(mode(&run_dir.api_socket()), 0o600);
        assert_eq!(mode(&path.join(LOCK)), 0o600);
        assert!(RunDir::take_over(&path).unwrap().is_none());

        drop(run_dir);
        assert!(!path.exists());
        let error = RunDir::take_over(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_names_of_run_directories_are_accepted() {
        fn check(name: &str, expected: bool) {
            assert_eq!(RunDir::is_name(name.as_ref()), expected, "{name}");
        }

        check(&new_name(), true);
        check("vmm-0123456789abcdef", true);
        check("vmm-0123456789ABCDEF", false);
        check("vmm-0123456789abcde", false);
        check("vmm-0123456789abcdef0", false);
        check("vmm-", false);
        check("", false);
        check("lost+found", false);
    }

    #[test]
    fn a_root_too_long_for_sockets_is_refused() {
        // The part of the path that the run directory and the longest socket in it add.
        let added = "/vmm-0123456789abcdef/rw/vsock.sock".len();
        let base = tempfile::tempdir().unwrap();
        let fill = |length: usize| {
            let root = base
                .path()
                .join("x".repeat(length - base.path().as_os_str().len() - 1));
            fs::create_dir(&root).unwrap();
            root
        };
        let fits = fill(SOCKET_PATH_LIMIT - 1 - added);
        let run_dir = RunDir::create(&fits).unwrap();
        UnixListener::bind(run_dir.folders().writable.join(VSOCK_SOCKET)).unwrap();

        let too_long = fill(SOCKET_PATH_LIMIT - added);
        match RunDir::create(&too_long).unwrap_err() {
            Error::PathTooLong { path, length, .. } => {
                assert!(path.starts_with(&too_long), "{path:?}");
                assert_eq!(length, SOCKET_PATH_LIMIT);
                UnixListener::bind(&path).unwrap_err();
            }
            error => panic!("{error:?}"),
        }
        assert_eq!(too_long.read_dir().unwrap().count(), 0);
    }
}
