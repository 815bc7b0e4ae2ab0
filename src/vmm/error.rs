//! [`Error`]: why an operation on a VMM process failed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::LogTail;
use super::run_dir::SOCKET_PATH_LIMIT;
use super::{Ended, Layer, NoKvm};
use crate::client;

/// Why a VMM couldn't be started, reached, examined or killed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SIGKILL was sent, but the kernel has not ended the process within the limit.
    #[error("the VMM with pid {pid} was killed and has not ended within {limit:?}")]
    NotKilled {
        /// The VMM's process id.
        pid: u32,
        /// How long the end of the process was waited for.
        limit: Duration,
        /// Why the signal couldn't be sent; `None` if it was sent.
        source: Option<io::Error>,
    },
    /// The configured executable doesn't exist.
    #[error(
        "there is no VMM binary {}{}: install cloud-hypervisor or name its path",
        .binary.display(),
        if *.searched_path { " in PATH" } else { "" }
    )]
    BinaryNotFound {
        /// The executable as it was configured.
        binary: PathBuf,
        /// Whether the name was a bare one, so that `PATH` was searched.
        searched_path: bool,
    },
    /// The configured executable exists but can't be executed.
    #[error(
        "the VMM binary {} can't be executed: check its mode and owner, and that its file system isn't mounted noexec",
        .binary.display()
    )]
    NotExecutable {
        /// The path of the executable.
        binary: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The run root isn't a directory that only this user can change.
    #[error("the run root {} can't be used: {problem}", .path.display())]
    RunRoot {
        /// The run root.
        path: PathBuf,
        /// Why it can't be used.
        problem: &'static str,
        /// The kernel's error, if a call of it failed.
        source: Option<io::Error>,
    },
    /// The path of a socket is longer than the kernel allows.
    #[error(
        "the socket path {} has {length} bytes and must have less than {limit}: choose a shorter directory",
        .path.display()
    )]
    PathTooLong {
        /// The path. For a run root, it is the longest path that a VMM would need below it.
        path: PathBuf,
        /// The path's length in bytes.
        length: usize,
        /// The least length in bytes that is too long.
        limit: usize,
    },
    /// A step of preparing the run directory failed.
    #[error("failed to {action} {}", .path.display())]
    RunDir {
        /// The step, as a verb: `create`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The process couldn't be started.
    #[error("failed to start the VMM {}", .binary.display())]
    Spawn {
        /// The executable.
        binary: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A layer of the VMM's confinement is required, and this host lacks it or does not allow it.
    #[error("the {layer} layer of the VMM's confinement is required and missing: {reason}")]
    LayerMissing {
        /// The layer.
        layer: Layer,
        /// Why it is missing.
        reason: String,
    },
    /// The confinement can't be prepared: a file can't be granted to the VMM, or a descriptor can't be duplicated.
    #[error("failed to prepare the confinement of the VMM")]
    Grant(#[source] io::Error),
    /// The trial process that finds out which layers this host allows can't be started, even without any layer.
    #[error("failed to start the process that tries which layers of confinement this host allows")]
    Trial(#[source] io::Error),
    /// `/proc` doesn't show this process's children and their descriptors, as in a container that masks it, so nothing
    /// can be proved of a VMM.
    #[error(
        "/proc doesn't show the VMM's process: run with a complete /proc of the own process namespace"
    )]
    ProcMasked(#[source] io::Error),
    /// The executable has forked the VMM instead of executing it, and no layer of the confinement would end the fork.
    #[error(
        "{} is process {pid} and the VMM that it has started is {answered}: have it `exec` the VMM",
        .binary.display()
    )]
    Forked {
        /// The executable.
        binary: PathBuf,
        /// The id of the started process in its own namespace.
        pid: u32,
        /// The id of the process that answered `vmm.ping`.
        answered: i64,
    },
    /// The thread that starts and reaps VMMs is not running.
    #[error("the thread that starts VMMs isn't running")]
    NoSpawner {
        /// Why the thread couldn't be started, if that was tried.
        source: Option<io::Error>,
    },
    /// The process ended before it answered `vmm.ping`.
    #[error("the VMM {} died at its start: {ended}", .binary.display())]
    DiedAtStart {
        /// The executable.
        binary: PathBuf,
        /// How the process ended, with the end of its log.
        ended: Box<Ended>,
        /// The likely reason, if this process can't open `/dev/kvm` either.
        source: Option<NoKvm>,
    },
    /// The process did not answer `vmm.ping` within the limit `vmm_start`, and was killed.
    #[error(
        "the VMM (pid {pid}) didn't answer vmm.ping on {} within {limit:?}{}",
        .socket.display(), LogTail(log_tail)
    )]
    NotReady {
        /// The VMM's process id.
        pid: u32,
        /// The VMM's api-socket.
        socket: PathBuf,
        /// The limit `vmm_start`.
        limit: Duration,
        /// The end of the VMM's log.
        log_tail: String,
        /// The error of the last attempt, if one has ended.
        source: Option<Box<client::Error>>,
    },
    /// A call of the VMM's API failed.
    #[error("the VMM at {} can't be used", .socket.display())]
    Client {
        /// The VMM's api-socket.
        socket: PathBuf,
        /// The client's error.
        source: Box<client::Error>,
    },
    /// The process no longer exists.
    #[error("the VMM (pid {pid}) has ended")]
    ProcessEnded {
        /// The VMM's process id.
        pid: u32,
    },
    /// A file of the process below `/proc` couldn't be read.
    #[error("failed to read {} of the VMM (pid {pid})", .path.display())]
    Inspect {
        /// The VMM's process id.
        pid: u32,
        /// The file below `/proc`.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

impl Error {
    /// Returns a function for `map_err` that makes the error of the failed step `action` on `path`.
    pub(super) fn run_dir(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Error::RunDir {
            action,
            path,
            source,
        }
    }
}

impl From<client::SocketPathTooLong> for Error {
    fn from(client::SocketPathTooLong { socket }: client::SocketPathTooLong) -> Self {
        Error::PathTooLong {
            length: socket.as_os_str().len(),
            limit: SOCKET_PATH_LIMIT,
            path: socket,
        }
    }
}
