//! What can go wrong when recording or replaying.

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
    /// A cassette's file can't be read.
    #[error("can't read the cassette {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not a cassette.
    #[error("{} is not a cassette that can be used", path.display())]
    Cassette {
        /// The file.
        path: PathBuf,
        /// Why, and where in the file.
        source: CassetteError,
    },
    /// A cassette's file can't be written.
    #[error("can't write the cassette {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cassette has a placeholder that the player was given no value for.
    #[error("step {step} has the placeholder ${{{name}}}, and no value was given for it")]
    Placeholder {
        /// The step, from 1.
        step: usize,
        /// The placeholder's name.
        name: String,
    },
    /// Something can't be the name of a placeholder, or stands for the empty text.
    #[error(
        "{name:?} can't be a placeholder: it takes capital letters, digits and underscores, for a text that isn't empty"
    )]
    PlaceholderName {
        /// The name.
        name: String,
    },
    /// The files of a recorded VM can't be made.
    #[error("can't lay out a recorded VM in {}", directory.display())]
    Files {
        /// Where.
        directory: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The golden snapshot of a recorded VM could not be made.
    #[error("can't make the golden snapshot of a recorded VM")]
    Mint(#[source] Box<MintError>),
    /// A sandbox can't be configured like this.
    #[error("can't make a sandbox on a recorded VM")]
    Config(#[source] ConfigError),
    /// The Unix socket to serve on can't be bound.
    #[error("can't listen on {}", socket.display())]
    Listen {
        /// The socket's path.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Requests came that were not recorded, or not at that place.
    #[error("{}", list(mismatches))]
    Mismatch {
        /// Every one of them, in the order in which they came.
        mismatches: Vec<Mismatch>,
    },
    /// The replay ended before everything recorded was asked for.
    #[error("{left} of {total} steps were not asked for; the next is step {step}: {expected}")]
    Leftover {
        /// How many were left.
        left: usize,
        /// How many the cassette has.
        total: usize,
        /// The first one that was left, from 1.
        step: usize,
        /// What it expected: method and path.
        expected: String,
    },
    /// The VMM that is to be recorded can't be asked for its release.
    #[error("the VMM to be recorded does not say its release")]
    Vmm {
        /// Why.
        source: Box<client::Error>,
    },
    /// The path of the VMM's api-socket can't be a socket's.
    #[error("the VMM to be recorded can't be reached")]
    VmmSocket {
        /// Why.
        source: SocketPathTooLong,
    },
    /// An exchange can't stand in a cassette.
    #[error("step {step} ({request}) can't be recorded: {reason}")]
    Unrecordable {
        /// The step, from 1.
        step: usize,
        /// Method and path.
        request: String,
        /// Why.
        reason: &'static str,
    },
    /// The function given to [`on_exchange`](super::PlayerOptions::on_exchange) failed.
    #[error("the hook failed at step {step}")]
    Hook {
        /// The step, from 1.
        step: usize,
        /// What it returned.
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
