//! Why a server couldn't be probed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::client;
use crate::{replay, spec, vmm};

/// Why a server couldn't be probed: nothing is known then of whether it is compatible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A private directory or a file in it couldn't be made.
    #[error("the probe can't make {}", .path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The directory's path isn't UTF-8, and so can't stand in a request.
    #[error("the path of the directory {} is not UTF-8, and requests have to name files in it", .path.display())]
    NotText {
        /// The directory.
        path: PathBuf,
    },
    /// The binary couldn't be started, or what was started doesn't answer as Cloud Hypervisor does.
    #[error("{} can't be probed: it is not a Cloud Hypervisor that runs here", .binary.display())]
    Vmm {
        /// The binary, as it was named.
        binary: PathBuf,
        /// What became of it.
        source: Box<vmm::Error>,
    },
    /// The VMM's exchanges couldn't be recorded.
    #[error("what the VMM answers in the scenario {scenario} can't be recorded")]
    Recording {
        /// The scenario.
        scenario: &'static str,
        /// Why.
        source: replay::Error,
    },
    /// The VMM couldn't be reached for a reason on this side.
    #[error("{asked} can't be sent to the VMM at {}", .socket.display())]
    Connection {
        /// What was to be asked.
        asked: String,
        /// The socket.
        socket: PathBuf,
        /// What the kernel says, or that the answer was not HTTP.
        source: io::Error,
    },
    /// The VMM didn't answer.
    #[error("the VMM gave no answer to {asked} ({during}) within {limit:?}")]
    Silent {
        /// What was asked.
        asked: String,
        /// In which part of the probe.
        during: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The binary writes without end.
    #[error("{} wrote more than {limit} bytes to its log, which no Cloud Hypervisor does", .binary.display())]
    TooMuchOutput {
        /// The binary, as it was named.
        binary: PathBuf,
        /// In bytes.
        limit: u64,
    },
    /// The whole probe took too long.
    #[error("the probe was not done within {limit:?}; it can be given more time")]
    OutOfTime {
        /// How long it had.
        limit: Duration,
    },
    /// There is no contract of the release that it is to be held against.
    #[error("there is no contract of {release} to hold the server against")]
    UnknownRelease {
        /// The release.
        release: spec::Release,
    },
    /// The release that the VMM says to be can't be asked or read.
    #[error("the VMM's release is not known; name one to hold it against")]
    NoRelease {
        /// Why.
        source: Box<client::Error>,
    },
}

impl Error {
    /// Whether nobody listens any more.
    pub(super) fn is_vmm_ended(&self) -> bool {
        let Error::Connection { source, .. } = self else {
            return false;
        };
        matches!(
            source.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::NotFound
        )
    }
}
