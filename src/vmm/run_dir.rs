//! The private directory of one VMM, and the lock that says that its agent lives.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use super::Error;
use super::files::beyond_streams;
use super::remove::remove_tree;
use crate::causes::Causes;
use crate::socket::SocketAddress;

/// The name in the [writable](super::Vmm::writable_dir) folder that is meant for the VM's vsock socket. The VMM binds it;
/// nothing here touches it.
pub const VSOCK_SOCKET: &str = "vsock.sock";

const API_SOCKET: &str = "api.sock";
const CONSOLE: &str = "console.log";
const LOCK: &str = "lock";
const LOG: &str = "vmm.log";
const RECORD: &str = "vmm.json";
const STAT: &str = "vmm.stat";
/// What the VMM may write.
const WRITABLE: &str = "rw";
/// What it may only read.
const READABLE: &str = "ro";

/// The kernel's limit for a socket's path with the zero byte that ends it (`sun_path`).
pub(super) const SOCKET_PATH_LIMIT: usize = 108;

/// Connections that may wait to be accepted. A VMM serves ten at most.
const BACKLOG: i32 = 128;

/// How long the removal of one run directory may take at the end of its VMM.
const REMOVAL_LIMIT: Duration = Duration::from_secs(5);

/// A name is taken or reclaimed under our hands once in a blue moon; this often in a row means that something is wrong.
const ATTEMPTS: usize = 16;

/// The two folders of a run directory that its VMM may open. Everything beside them is the agent's own.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    /// What the VMM may write: its sockets, its disks.
    pub(super) writable: PathBuf,
    /// What it may only read: the snapshot that it restores.
    pub(super) readable: PathBuf,
}

/// A run directory that this process has locked.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    folders: Folders,
    /// Locked while this process lives. Not inherited by the VMM: if the VMM survives the agent, the next start must
    /// find the lock free.
    _lock: Lock,
}

/// A run directory that goes when it isn't needed any more.
#[derive(Debug)]
pub(super) struct RemovedOnDrop(RunDir);

impl RunDir {
    /// Creates a run directory with a name of its own below `root`, locked.
    pub(super) fn create(root: &Path) -> Result<RemovedOnDrop, Error> {
        for _ in 0..ATTEMPTS {
            let path = root.join(new_name());
            check_length(&path)?;
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => {
                    return Err(Error::run_dir("create the run directory", &path)(source));
                }
            }
            // Another agent may reclaim the directory before it is locked. Then take a new one.
            match lock(&path) {
                Ok(Some(lock)) => {
                    let run_dir = RemovedOnDrop(RunDir::of(path, lock));
                    let Folders { writable, readable } = &run_dir.folders;
                    for folder in [writable, readable] {
                        let made = DirBuilder::new().mode(0o700).create(folder);
                        made.map_err(Error::run_dir("create the folder", folder))?;
                    }
                    return Ok(run_dir);
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::run_dir("lock the run directory", &path)(source)),
            }
        }
        Err(Error::RunRoot {
            path: root.to_owned(),
            problem: "run directories vanish from it as soon as they are made",
            source: None,
        })
    }

    /// Takes over a run directory that another agent left; `None` if that agent lives, or somebody else takes it over.
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

    /// Whether `name` is one that [`create`](RunDir::create) gives.
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

    /// The directory's own name, by which its processes and its control group are known.
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

    /// Binds the api-socket and takes its name away again, before anything can have connected to it, unless `keep_name`.
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

    /// Removes the directory with everything in it, until `deadline`; whether nothing is left. Doing it again does nothing.
    pub(super) fn try_remove(&self, deadline: Instant) -> io::Result<bool> {
        remove_tree(&self.path, deadline)
    }

    /// Removes the directory as far as possible.
    pub(super) fn remove(&self) {
        let path = self.path.display();
        match self.try_remove(Instant::now() + REMOVAL_LIMIT) {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                %path, limit = ?REMOVAL_LIMIT,
                "a run directory holds more than can be removed in the time; the next start goes on"
            ),
            Err(error) => tracing::warn!(
                %path, error = %Causes(&error),
                "a run directory couldn't be removed; the next start will try again"
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
    // The longest name of a socket in it.
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

/// Locks a run directory; `None` if somebody else has it locked, or removed it meanwhile.
///
/// The lock belongs to the open file (flock), not to the process: this process, too, sees that it is taken.
fn lock(run_dir: &Path) -> io::Result<Option<Lock>> {
    let path = run_dir.join(LOCK);
    // Whoever comes first creates it: the agent that made the directory, or one that takes it for left behind.
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(&path)?;
    if !lock.metadata()?.is_file() {
        return Err(io::Error::other("its lock is no regular file"));
    }
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let lock = Lock(lock);
    // It may have been removed between open and lock; then it locks nothing.
    let in_place = fs::symlink_metadata(&path)?;
    Ok((lock.0.metadata()?.ino() == in_place.ino()).then_some(lock))
}

/// A lock that was taken. It ends with this, even if a child that is about to exec has a copy of the descriptor.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.0, FlockOperation::Unlock) {
            tracing::warn!(error = %Causes(&error), "the lock of a run directory was not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_lock_ends_although_a_copy_of_its_descriptor_is_open() {
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
    fn names_of_others_are_not_ours() {
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
        // What the name of the run directory and the longest socket in it add.
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
