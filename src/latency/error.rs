//! [`Error`]: why a case was not completed.

use super::MAX_RECORDED;
use crate::golden;
use crate::replay;
use crate::sandbox::{self, ToolOutcome};

/// Why a case was not completed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call of the sandbox or of its pool failed.
    #[error("the sandbox failed")]
    Sandbox(#[from] sandbox::Error),
    /// The golden snapshot can't be used.
    #[error("the golden snapshot cannot be used")]
    Golden(#[from] golden::Error),
    /// A tool had another outcome than it must have.
    #[error("the tool had an unexpected outcome: {0}")]
    Tool(ToolOutcome),
    /// The output of the `echo` tool was not the message that it was given.
    #[error("the echo tool's output is not its message")]
    Echo,
    /// The output of a tool with streams ended too early.
    #[error("the tool's output ended after {came} of {expected} bytes: {outcome}")]
    ShortStream {
        /// How many bytes were expected.
        expected: u64,
        /// How many bytes came.
        came: u64,
        /// How the tool ended.
        outcome: ToolOutcome,
    },
    /// A reset was made, but not verified.
    #[error("the reset was not verified: there are no baselines")]
    Unverified,
    /// The recordings could not be played.
    #[error("the recordings could not be played")]
    Replay(#[from] replay::Error),
    /// The case has more iterations than recordings can serve.
    #[error(
        "recordings serve at most {MAX_RECORDED} iterations of a case including the warm-up, not {wanted}"
    )]
    TooMany {
        /// How many iterations were requested, including the warm-up.
        wanted: u64,
    },
    /// A worker ended without a result.
    #[error("a worker ended without a result")]
    Worker(#[from] tokio::task::JoinError),
}

impl Error {
    /// A stable code: the code of the [sandbox's error](sandbox::Error#codes) if there is one, otherwise one that
    /// begins with `LATENCY_`.
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
