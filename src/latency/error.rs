//! Why a case could not run to its end.

use super::MAX_RECORDED;
use crate::golden;
use crate::replay;
use crate::sandbox::{self, ToolOutcome};

/// Why a case could not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call of the sandbox or of its pool failed.
    #[error("the sandbox failed")]
    Sandbox(#[from] sandbox::Error),
    /// The golden snapshot can't be used.
    #[error("the golden snapshot cannot be used")]
    Golden(#[from] golden::Error),
    /// A tool ended otherwise than it has to.
    #[error("the tool ended otherwise than it has to: {0}")]
    Tool(ToolOutcome),
    /// The tool that echoes wrote something else than it was given.
    #[error("the tool wrote something else than its message")]
    Echo,
    /// The output of a tool with streams ended too early.
    #[error("the tool's output ended after {came} of {expected} bytes: {outcome}")]
    ShortStream {
        /// How many bytes have to come.
        expected: u64,
        /// How many came.
        came: u64,
        /// How the tool ended.
        outcome: ToolOutcome,
    },
    /// A reset was made and not verified.
    #[error("the reset was not verified: there are no baselines")]
    Unverified,
    /// The recordings could not be played.
    #[error("the recordings could not be played")]
    Replay(#[from] replay::Error),
    /// Recordings have no answers for so many iterations.
    #[error("recordings serve {MAX_RECORDED} iterations of a case, with the warm-up, not {wanted}")]
    TooMany {
        /// How many there would be.
        wanted: u64,
    },
    /// A worker ended without a result.
    #[error("a worker ended without a result")]
    Worker(#[from] tokio::task::JoinError),
}

impl Error {
    /// A code that stays the same: that of the sandbox's error where there is one.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Sandbox(error) => error.code(),
            Error::Golden(_) => "LATENCY_GOLDEN",
            Error::Tool(_) => "LATENCY_TOOL",
            Error::Echo => "LATENCY_ECHO",
            Error::ShortStream { .. } => "LATENCY_SHORT_STREAM",
            Error::Unverified => "LATENCY_UNVERIFIED",
            Error::Replay(_) => "LATENCY_REPLAY",
            Error::TooMany { .. } => "LATENCY_TOO_MANY",
            Error::Worker(_) => "LATENCY_WORKER",
        }
    }
}
