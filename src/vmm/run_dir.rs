//! The private directory of one VMM, and the lock that says that its agent lives.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::Error;

/// The name in the run directory that is meant for the VM's vsock socket. The VMM binds it; nothing here touches it.
pub const VSOCK_SOCKET: &str = "vsock.sock";

const API_SOCKET: &str = "api.sock";
const CONSOLE: &str = "console.log";
const LOCK: &str = "lock";
const LOG: &str = "vmm.log";
const RECORD: &str = "vmm.json";
const STAT: &str = "vmm.stat";

/// The kernel's limit for a socket's path with the zero byte that ends it (`sun_path`).
pub(super) const SOCKET_PATH_LIMIT: usize = 108;

/// A name is taken or reclaimed under our hands once in a blue moon; this often in a row means that something is wrong.
const ATTEMPTS: usize = 16;

/// A run directory that this process has locked.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
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
                    return Ok(RemovedOnDrop(RunDir { path, _lock: lock }));
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
        Ok(lock(path)?.map(|lock| RunDir {
            path: path.to_owned(),
            _lock: lock,
        }))
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

    /// Binds the api-socket, for this user only.
    pub(super) fn bind_api_socket(&self) -> Result<UnixListener, Error> {
        let path = self.api_socket();
        let listener =
            UnixListener::bind(&path).map_err(Error::run_dir("bind the api-socket", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .map_err(Error::run_dir("make private the api-socket", &path))?;
        Ok(listener)
    }

    /// Removes the directory with everything in it. Doing it again does nothing.
    pub(super) fn try_remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the directory as far as possible.
    pub(super) fn remove(&self) {
        if let Err(error) = self.try_remove() {
            tracing::warn!(
                path = %self.path.display(), %error,
                "the run directory couldn't be removed; the next start will try again"
            );
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
    let path = run_dir.join(VSOCK_SOCKET);
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
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)?;
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
            tracing::warn!(%error, "the lock of a run directory was not given back");
        }
    }
}

#[cfg(test)]
mod tests {
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
        let _listener = run_dir.bind_api_socket().unwrap();
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
        let added = "/vmm-0123456789abcdef/vsock.sock".len();
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
        UnixListener::bind(run_dir.path().join(VSOCK_SOCKET)).unwrap();

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
