//! [`Error`]: why a server couldn't be probed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::client;
use crate::{replay, spec, vmm};

/// Why a server couldn't be probed. The result of the probe is then unknown: the server may be compatible or not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The private directory of the probe, or a file in it, couldn't be created.
    #[error("the probe can't make {}", .path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The path of the directory isn't UTF-8, so a request can't contain it.
    #[error("the path of the directory {} is not UTF-8, so requests can't name files in it", .path.display())]
    NotText {
        /// The directory.
        path: PathBuf,
    },
    /// The binary couldn't be started, or it doesn't answer as Cloud Hypervisor does.
    #[error("{} can't be probed: it did not start and answer as Cloud Hypervisor does", .binary.display())]
    Vmm {
        /// The path of the binary, as the caller gave it.
        binary: PathBuf,
        /// The failure to start it.
        source: Box<vmm::Error>,
    },
    /// The exchanges with the VMM couldn't be recorded.
    #[error("the VMM's answers in the scenario {scenario} can't be recorded")]
    Recording {
        /// The name of the scenario.
        scenario: &'static str,
        /// The failure of the recorder.
        source: replay::Error,
    },
    /// The request couldn't be sent, for a reason that is not the VMM's.
    #[error("can't send {asked} to the VMM at {}", .socket.display())]
    Connection {
        /// The method and the path of the request.
        asked: String,
        /// The path of the socket.
        socket: PathBuf,
        /// The error of the kernel, or an answer that was not HTTP.
        source: io::Error,
    },
    /// The VMM didn't answer within the time limit.
    #[error("the VMM did not answer {asked} within {limit:?} ({during})")]
    Silent {
        /// The method and the path of the request.
        asked: String,
        /// The part of the probe.
        during: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// The binary wrote more to its log than the probe allows.
    #[error("{} wrote more than {limit} bytes to its log, the limit of the probe", .binary.display())]
    TooMuchOutput {
        /// The path of the binary, as the caller gave it.
        binary: PathBuf,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The probe exceeded its time limit.
    #[error("the probe did not finish within {limit:?}: allow it more time")]
    OutOfTime {
        /// The time limit.
        limit: Duration,
    },
    /// This crate has no contract of the release that the caller named.
    #[error("there is no contract of {release} to compare the server with")]
    UnknownRelease {
        /// The release that the caller named.
        release: spec::Release,
    },
    /// The release of the VMM can't be read.
    #[error("the VMM's release is not known: name the release to compare it with")]
    NoRelease {
        /// The failure to read it.
        source: Box<client::Error>,
    },
}

impl Error {
    /// Whether the error means that the VMM has ended: nothing listens on the socket any more.
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
