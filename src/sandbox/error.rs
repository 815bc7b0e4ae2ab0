//! What can go wrong with a sandbox, by the codes of the agent's protocol.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{
    ConfigError, EnvironmentError, Outcome, ResetOutcome, ResetReason, TransferError, WireState,
};
use crate::archive::FileCode;
use crate::client::Release;
use crate::guest::protocol::ToolNameError;
use crate::{golden, machine, vmm, vsock};

/// A sandbox couldn't do what was asked of it. [`code`](Error::code) is stable, [`advice`](Error::advice) says what to do
/// next.
///
/// A clone is cheap, and shares its cause: the error that a call returned stands in the sandbox's state, too.
///
/// # Codes
///
#[doc = include_str!("codes.md")]
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration of a [pool](super::Pool) can't be, or asks for more memory than there is.
    #[error("the pool cannot be made as it is configured")]
    Config(#[source] Arc<ConfigError>),
    /// The thread for the [blocking](crate::blocking) sandboxes of this process can't be started.
    #[error("no thread can be started for the sandboxes of this process")]
    NoThread(#[source] Arc<io::Error>),
    /// No sandbox can run here: no KVM, no VMM, a release that doesn't fit.
    #[error("no sandbox can run here; `chv-sandbox doctor` says what this host lacks")]
    NotAvailable(#[source] Arc<Unavailable>),
    /// The sandbox isn't in a state for this.
    #[error("the sandbox is {state}, so it cannot {action}")]
    NotReady {
        /// What was asked, as a verb.
        action: &'static str,
        /// Where it stands.
        state: WireState,
    },
    /// The sandbox halted after a reset that was not verified, and takes nothing but a shutdown. A [pool](super::Pool)
    /// halted after two such resets in a row.
    #[error("the {what} has halted and cannot {action}, it takes nothing but shutdown: {failed}")]
    Halted {
        /// What has halted: `sandbox` or `pool`.
        what: &'static str,
        /// What was asked, as a verb.
        action: &'static str,
        /// What the reset found.
        failed: Arc<FailedReset>,
    },
    /// The sandbox can't take a tool before it is reset.
    #[error("the sandbox takes no tool until it is reset: {reason}")]
    NeedsReset {
        /// What happened.
        reason: ResetReason,
    },
    /// The VM didn't come up. What had been started is cleaned up.
    #[error("the sandbox did not boot")]
    BootFailed(#[source] Arc<BootFailure>),
    /// The tool gave no answer within its deadline and the grace.
    #[error("the tool gave no answer within its {} ms and the grace", deadline.as_millis())]
    ToolTimeout {
        /// The invocation's own deadline.
        deadline: Duration,
        /// What the channel saw.
        source: vsock::Error,
    },
    /// The invocation can't be sent to the guest. Nothing of it ran, and the sandbox goes on.
    #[error("the tool was not sent to the guest")]
    ToolRefused(#[source] ToolRefusal),
    /// A reset ended the tool.
    #[error("a reset ended the tool")]
    ResetInterrupted,
    /// A source disagrees with its baseline. The sandbox has halted.
    #[error("the reset is not to be believed: {0}")]
    ResetDivergence(Arc<FailedReset>),
    /// A source was silent, twice. The sandbox has halted.
    #[error("the reset could not be verified: {0}")]
    ResetTimeout(Arc<FailedReset>),
    /// The revert itself failed, so nothing could be verified. It may be tried again.
    #[error("the sandbox could not be reverted")]
    ResetFailed(#[source] Arc<machine::Error>),
    /// The golden snapshot isn't what its manifest says, or wasn't left alone while it was restored. No VM is awake: the
    /// one that ran was not touched where it was found before, but takes no tool any more. It may be tried again.
    #[error("the sandbox was not reverted")]
    ResetRefused(#[source] Arc<golden::Error>),
    /// The VMM ended by itself while no call was under way.
    #[error("the VMM ended by itself: {0}")]
    VmmEnded(Arc<vmm::Ended>),
    /// The channel to the guest failed, or the connection of a run with streams. A reset mends it.
    #[error("the channel to the guest failed")]
    Channel(#[source] vsock::Error),
    /// Files were not transferred, and nothing of them is at their target. The sandbox goes on.
    #[error("the files were not transferred")]
    Files(#[source] Arc<TransferError>),
    /// The call was ended by a shutdown.
    #[error("the sandbox was shut down meanwhile")]
    ShutDown,
    /// A [pool](super::Pool) had no sandbox to hand out within the caller's deadline.
    #[error("the pool had no clean sandbox to hand out within {waited:.1?}")]
    AcquireTimeout {
        /// The deadline.
        waited: Duration,
        /// Why the last sandbox that was being prepared did not come up, if one did not.
        source: Option<Arc<Error>>,
    },
    /// The [pool](super::Pool) is drained or shut down.
    #[error("the pool is closed, so it hands out no sandbox")]
    PoolClosed,
}

/// Why an invocation can't be sent to the guest.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolRefusal {
    /// No tool can have this name.
    #[error("no tool can have this name")]
    Name(#[source] ToolNameError),
    /// It has a standard input, an environment or a directory, which only [`start`](super::Sandbox::start) gives a tool.
    #[error(
        "standard input, environment and directory are given to a tool that is started with streams"
    )]
    NeedsStreams,
    /// No tool can be given this environment.
    #[error("no tool can be given this environment")]
    Environment(#[source] EnvironmentError),
    /// The guest runs no tools with streams: it is older than the extension `run/1`.
    #[error("the guest runs no tools with streams")]
    NotSupported(#[source] vsock::Error),
    /// There are no sockets for a run that no guest runs, such as one of a [`StubSandbox`](super::StubSandbox).
    #[error("there are no sockets for it")]
    NoSockets(#[source] Arc<io::Error>),
    /// The invocation is larger than a frame may be.
    #[error("its parameters are too large")]
    TooLarge(#[source] vsock::Error),
}

/// What to do after an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Advice {
    /// Make the same call again, a little later.
    Retry,
    /// Call [`reset`](super::Sandbox::reset), then make the same call again.
    Reset,
    /// Shut this sandbox down and boot it anew, or give it back to its pool and acquire another.
    Rebuild,
    /// Go on without this tool, or these files: the same call is refused each time.
    SkipTool,
    /// Stop. A person has to mend the host, the configuration or the golden snapshot, or the caller has ended the work
    /// itself.
    GiveUp,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Advice::Retry => "retry",
            Advice::Reset => "reset",
            Advice::Rebuild => "rebuild",
            Advice::SkipTool => "skip the tool",
            Advice::GiveUp => "give up",
        })
    }
}

/// Why no sandbox can run here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// There is no KVM, or this user may not use it.
    #[error("KVM cannot be used")]
    Kvm(#[source] vmm::NoKvm),
    /// There is no VMM that could be executed.
    #[error("there is no usable VMM")]
    Vmm(#[source] vmm::Error),
    /// The VMM is older than what this crate knows.
    #[error("the VMM is {release}; {oldest} is the oldest that is supported")]
    TooOld {
        /// The VMM's release.
        release: Release,
        /// The oldest that would do.
        oldest: Release,
    },
    /// The VMM isn't of the release that made the golden snapshot.
    #[error("the VMM is {release}, the golden snapshot was minted by {minted_by}: mint it again")]
    AnotherRelease {
        /// The VMM's release.
        release: Release,
        /// The release in the manifest.
        minted_by: String,
    },
}

/// Why a sandbox didn't boot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootFailure {
    /// The machine didn't come up.
    #[error("the machine did not come up")]
    Machine(#[source] machine::Error),
    /// The golden snapshot can't be used.
    #[error("the golden snapshot cannot be used")]
    Golden(#[source] golden::Error),
    /// It came up, but isn't what the golden snapshot says.
    #[error("the restored machine is not what its baselines say")]
    Unverified(#[source] Error),
}

/// A reset that was made and not believed.
#[derive(Debug)]
pub struct FailedReset {
    /// What it found.
    pub outcome: ResetOutcome,
    /// Where the evidence is kept: the overlay as it was found, the report, the VMM's log. `None` when that
    /// couldn't be written; the log says why.
    pub evidence: Option<PathBuf>,
}

impl fmt::Display for FailedReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks = self.outcome.report.checks.iter();
        let bad =
            checks.filter(|check| matches!(check.outcome, Outcome::Disagreed | Outcome::Silent));
        for (n, check) in bad.enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            let (source, found, expected) = (check.source, &check.found, &check.expected);
            write!(
                f,
                "{separator}{source:?} said \"{found}\" instead of \"{expected}\""
            )?;
        }
        match &self.evidence {
            Some(path) => write!(f, " (evidence in {})", path.display()),
            None => Ok(()),
        }
    }
}

impl Error {
    /// The code in the agent's protocol: see the [table](Error#codes).
    pub fn code(&self) -> &'static str {
        match self {
            Error::NotAvailable(_) | Error::Config(_) | Error::NoThread(_) => {
                "SANDBOX_NOT_AVAILABLE"
            }
            Error::NotReady { .. } | Error::VmmEnded(_) => "SANDBOX_NOT_READY",
            Error::NeedsReset { .. } => "SANDBOX_RESET_REQUIRED",
            Error::Halted { .. } => "SANDBOX_HALTED",
            Error::BootFailed(_) => "SANDBOX_BOOT_FAILED",
            Error::ToolTimeout { .. } => "SANDBOX_TOOL_TIMEOUT",
            Error::ToolRefused(_) => "SANDBOX_TOOL_REFUSED",
            Error::ResetInterrupted => "SANDBOX_RESET_INTERRUPTED",
            Error::ResetDivergence(_) => "SANDBOX_RESET_DIVERGENCE",
            Error::ResetTimeout(_) => "SANDBOX_RESET_TIMEOUT",
            Error::ResetFailed(_) | Error::ResetRefused(_) => "SANDBOX_RESET_FAILED",
            Error::Channel(error) => error.code(),
            Error::Files(error) => error.code().text(),
            Error::ShutDown => "SANDBOX_SHUT_DOWN",
            Error::AcquireTimeout { .. } => "SANDBOX_ACQUIRE_TIMEOUT",
            Error::PoolClosed => "SANDBOX_POOL_CLOSED",
        }
    }

    /// What to do next.
    pub fn advice(&self) -> Advice {
        match self {
            Error::NotAvailable(_)
            | Error::Config(_)
            | Error::NoThread(_)
            | Error::ResetRefused(_)
            | Error::ShutDown
            | Error::PoolClosed => Advice::GiveUp,
            Error::NotReady { state, .. } => match state {
                WireState::Booting | WireState::Resetting | WireState::Ready => Advice::Retry,
                WireState::Failed | WireState::NotBooted => Advice::Rebuild,
            },
            Error::NeedsReset { .. }
            | Error::ToolTimeout { .. }
            | Error::ResetFailed(_)
            | Error::VmmEnded(_) => Advice::Reset,
            Error::Halted { what: "pool", .. } => Advice::GiveUp,
            Error::Halted { .. } | Error::ResetDivergence(_) | Error::ResetTimeout(_) => {
                Advice::Rebuild
            }
            Error::BootFailed(failure) => match **failure {
                BootFailure::Machine(_) => Advice::Rebuild,
                BootFailure::Golden(_) | BootFailure::Unverified(_) => Advice::GiveUp,
            },
            Error::ToolRefused(_) => Advice::SkipTool,
            Error::Files(error) => match error.code() {
                FileCode::Name | FileCode::Kind | FileCode::Limit | FileCode::Io => {
                    Advice::SkipTool
                }
                // The guest is broken, or lies.
                FileCode::Truncated | FileCode::Digest => Advice::Reset,
            },
            Error::ResetInterrupted | Error::AcquireTimeout { .. } => Advice::Retry,
            Error::Channel(error) if error.is_duplicate() => Advice::SkipTool,
            Error::Channel(vsock::Error::TooManyStreams { .. }) => Advice::Retry,
            Error::Channel(vsock::Error::Refused { .. } | vsock::Error::NotAnnounced { .. }) => {
                Advice::SkipTool
            }
            Error::Channel(_) => Advice::Reset,
        }
    }

    /// Whether this is the error of a tool of which nothing was sent to the guest.
    pub(super) fn is_unsent(&self) -> bool {
        match self {
            Error::NotReady { .. }
            | Error::NeedsReset { .. }
            | Error::Halted { .. }
            | Error::ToolRefused(_) => true,
            Error::Channel(error) => error.is_duplicate(),
            _ => false,
        }
    }

    /// What the reset that failed had found, for a divergence, a time-out and what has halted since.
    pub fn failed_reset(&self) -> Option<&FailedReset> {
        self.failed().map(|failed| &**failed)
    }

    /// The same, to be kept.
    pub(super) fn shared_failed_reset(&self) -> Option<Arc<FailedReset>> {
        self.failed().map(Arc::clone)
    }

    fn failed(&self) -> Option<&Arc<FailedReset>> {
        match self {
            Error::ResetDivergence(failed)
            | Error::ResetTimeout(failed)
            | Error::Halted { failed, .. } => Some(failed),
            Error::BootFailed(failure) => match &**failure {
                BootFailure::Unverified(error) => error.failed(),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
