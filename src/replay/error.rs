//! [`Error`]: why recording or replaying failed.

use std::io;
use std::path::PathBuf;

use crate::client::{self, SocketPathTooLong};
use crate::golden::MintError;
use crate::sandbox::ConfigError;

use super::{CassetteError, HookError, Mismatch};

/// Why recording or replaying failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file of a cassette can't be read.
    #[error("can't read the cassette {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The file is not a cassette, or not one that this version reads.
    #[error("{} is not a valid cassette", path.display())]
    Cassette {
        /// The file.
        path: PathBuf,
        /// The reason, with the place in the file.
        source: CassetteError,
    },
    /// The file of a cassette can't be written.
    #[error("can't write the cassette {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The cassette has a placeholder for which the player was given no value.
    #[error("step {step} has the placeholder ${{{name}}}, and no value was given for it")]
    Placeholder {
        /// The step, from 1.
        step: usize,
        /// The placeholder's name.
        name: String,
    },
    /// The name of a placeholder has other characters than capital letters, digits and underscores, or its text is
    /// empty.
    #[error(
        "{name:?} is not a valid placeholder: it needs a name of capital letters, digits and underscores, and a text"
    )]
    PlaceholderName {
        /// The name of the placeholder.
        name: String,
    },
    /// A file of a recorded VM can't be created.
    #[error("can't create the files of a recorded VM in {}", directory.display())]
    Files {
        /// The directory for the files.
        directory: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The golden snapshot of a recorded VM can't be made.
    #[error("can't make the golden snapshot of a recorded VM")]
    Mint(#[source] Box<MintError>),
    /// The configuration of the sandbox is not valid.
    #[error("can't configure a sandbox on a recorded VM")]
    Config(#[source] ConfigError),
    /// The Unix socket of the player or of the recorder can't be bound.
    #[error("can't listen on {}", socket.display())]
    Listen {
        /// The path of the socket.
        socket: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The player received requests that differ from the recorded ones, or more requests than were recorded.
    #[error("{}", list(mismatches))]
    Mismatch {
        /// The requests that did not match, in the order in which they came.
        mismatches: Vec<Mismatch>,
    },
    /// The replay ended before every recorded request came.
    #[error("{left} of {total} steps were not asked for; the next is step {step}: {expected}")]
    Leftover {
        /// The number of steps that were not played.
        left: usize,
        /// The number of steps in the cassette.
        total: usize,
        /// The first step that was not played, from 1.
        step: usize,
        /// The request that this step expected: method and path.
        expected: String,
    },
    /// The VMM to be recorded did not answer `vmm.ping` with its release.
    #[error("can't read the release of the VMM that is to be recorded")]
    Vmm {
        /// The error of the request.
        source: Box<client::Error>,
    },
    /// The path of the VMM's api-socket is too long for a socket.
    #[error("can't connect to the VMM that is to be recorded")]
    VmmSocket {
        /// The error, with the path.
        source: SocketPathTooLong,
    },
    /// A cassette can't hold this exchange.
    #[error("step {step} ({request}) can't be recorded: {reason}")]
    Unrecordable {
        /// The step, from 1.
        step: usize,
        /// The request: method and path.
        request: String,
        /// The reason.
        reason: &'static str,
    },
    /// The function given to [`on_exchange`](super::PlayerOptions::on_exchange) failed.
    #[error("the hook failed at step {step}")]
    Hook {
        /// The step, from 1.
        step: usize,
        /// The error that the hook returned.
        source: HookError,
    },
}

fn list(mismatches: &[Mismatch]) -> String {
    let mut text = String::new();
    for mismatch in mismatches {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&mismatch.to_string());
    }
    text
}
