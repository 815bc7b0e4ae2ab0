//! What can go wrong with a VMM process.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::LogTail;
use super::run_dir::SOCKET_PATH_LIMIT;
use super::{Ended, Layer, NoKvm};
use crate::client;

/// Why a VMM couldn't be started, reached or looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process survived SIGKILL so far: the kernel has not ended it.
    #[error("the VMM with pid {pid} was killed and has not ended within {limit:?}")]
    NotKilled {
        /// Its process id.
        pid: u32,
        /// How long it was waited for.
        limit: Duration,
        /// Why the signal couldn't be sent, if it couldn't.
        source: Option<io::Error>,
    },
    /// The configured executable doesn't exist.
    #[error(
        "there is no VMM binary {}{}: install cloud-hypervisor or name its path",
        .binary.display(),
        if *.searched_path { " in PATH" } else { "" }
    )]
    BinaryNotFound {
        /// As configured.
        binary: PathBuf,
        /// Whether it was a bare name, so that `PATH` was searched.
        searched_path: bool,
    },
    /// The configured executable is there and can't be run.
    #[error(
        "the VMM binary {} can't be executed: check its mode and owner, and that its file system isn't mounted noexec",
        .binary.display()
    )]
    NotExecutable {
        /// As configured.
        binary: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The run root isn't a directory that only this user can change.
    #[error("the run root {} can't be used: {problem}", .path.display())]
    RunRoot {
        /// The run root.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// What the kernel says, if it was asked.
        source: Option<io::Error>,
    },
    /// A socket would have a path that the kernel doesn't take.
    #[error(
        "the socket path {} has {length} bytes and must have less than {limit}: choose a shorter directory",
        .path.display()
    )]
    PathTooLong {
        /// The path; below a run root, the longest one that would be needed.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// The length at which a path is too long.
        limit: usize,
    },
    /// A step of preparing the run directory failed.
    #[error("failed to {action} {}", .path.display())]
    RunDir {
        /// The step, as an infinitive.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The process couldn't be started.
    #[error("failed to start the VMM {}", .binary.display())]
    Spawn {
        /// The executable.
        binary: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A layer of the VMM's boundary is required, and this host doesn't have it.
    #[error("the {layer} layer of the VMM's boundary is required and missing: {reason}")]
    LayerMissing {
        /// The layer.
        layer: Layer,
        /// Why it is missing.
        reason: String,
    },
    /// What the VMM is to be given can't be given to it.
    #[error("failed to prepare the boundary of the VMM")]
    Grant(#[source] io::Error),
    /// Not even a process without any layer could be started, to try the layers.
    #[error("failed to start a process that tries the boundary of a VMM")]
    Trial(#[source] io::Error),
    /// `/proc` shows too little of this host's processes to prove anything of a VMM, as in a container that masks it.
    #[error(
        "/proc doesn't show what has to be known of a VMM: run with a whole /proc of the own process namespace"
    )]
    ProcMasked(#[source] io::Error),
    /// The executable has forked the VMM instead of becoming it, and nothing here would end the fork.
    #[error(
        "{} is process {pid} and the VMM that it has started is {answered}: have it `exec` the VMM",
        .binary.display()
    )]
    Forked {
        /// The executable.
        binary: PathBuf,
        /// The process that was started, by its id in its own namespace.
        pid: u32,
        /// The process that answered `vmm.ping`.
        answered: i64,
    },
    /// The thread that starts and reaps VMMs isn't there.
    #[error("the thread that starts VMMs isn't running")]
    NoSpawner {
        /// Why it couldn't be started, if that was tried.
        source: Option<io::Error>,
    },
    /// The process ended before it answered `vmm.ping`.
    #[error("the VMM {} died at its start: {ended}", .binary.display())]
    DiedAtStart {
        /// The executable.
        binary: PathBuf,
        /// How it ended, with the end of its log.
        ended: Box<Ended>,
        /// Why, if this process can't open the device of KVM either.
        source: Option<NoKvm>,
    },
    /// The process lives and didn't answer `vmm.ping` in time; it was killed.
    #[error(
        "the VMM (pid {pid}) didn't answer vmm.ping on {} within {limit:?}{}",
        .socket.display(), LogTail(log_tail)
    )]
    NotReady {
        /// Its process id.
        pid: u32,
        /// Its api-socket.
        socket: PathBuf,
        /// The readiness limit.
        limit: Duration,
        /// The end of its log.
        log_tail: String,
        /// What the last attempt came to, if it came to anything.
        source: Option<Box<client::Error>>,
    },
    /// The API of the VMM couldn't be used.
    #[error("the VMM at {} can't be used", .socket.display())]
    Client {
        /// Its api-socket.
        socket: PathBuf,
        /// What the client says.
        source: Box<client::Error>,
    },
    /// The process isn't there any more.
    #[error("the VMM (pid {pid}) has ended")]
    ProcessEnded {
        /// Its process id.
        pid: u32,
    },
    /// What the kernel knows of the process couldn't be read.
    #[error("failed to read {} of the VMM (pid {pid})", .path.display())]
    Inspect {
        /// Its process id.
        pid: u32,
        /// The file below `/proc`.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: the step `action` on `path` failed.
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
