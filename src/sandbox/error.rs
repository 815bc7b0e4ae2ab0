//! [`Error`]: every error of a sandbox or a pool, with its code in the agent's protocol and the [`Advice`] that goes
//! with it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{
    CheckOutcome, ConfigError, EnvironmentError, ResetOutcome, ResetReason, TransferError,
    WireState,
};
use crate::archive::FileCode;
use crate::client::Release;
use crate::guest::protocol::ToolNameError;
use crate::{golden, machine, vmm, vsock};

/// An error of a [`Sandbox`](super::Sandbox) or a [`Pool`](super::Pool).
///
/// [`code`](Error::code) is a stable name for logs and protocols. [`advice`](Error::advice) says what the caller does
/// next. The message of an error doesn't repeat its cause: show the whole chain of
/// [`source`](std::error::Error::source)s. A clone is cheap and shares the cause.
///
/// ```
/// use std::time::Duration;
/// use chv_sandbox::sandbox::{Advice, Error, RunOnce, Sandbox, ToolInvocation};
///
/// const ATTEMPTS: u32 = 5;
/// const PAUSE: Duration = Duration::from_millis(100);
///
/// /// Runs a tool, and tries again as long as the advice allows it.
/// async fn dispatch(sandbox: &dyn Sandbox, job: &ToolInvocation) -> Result<RunOnce, Error> {
///     let mut ran = sandbox.run_once(job.clone()).await;
///     for attempt in 1..ATTEMPTS {
///         let Err(error) = &ran else { break };
///         // What the advice asks for may fail too, with an advice of its own.
///         ran = match recover(sandbox, error, PAUSE * attempt).await {
///             // Files that the tool needs are pushed here again: a reset removed them.
///             Ok(true) => sandbox.run_once(job.clone()).await,
///             Ok(false) => break,
///             Err(error) => Err(error),
///         };
///     }
///     ran
/// }
///
/// /// Does what the advice says. Returns whether the dispatch can be repeated.
/// async fn recover(sandbox: &dyn Sandbox, error: &Error, pause: Duration) -> Result<bool, Error> {
///     match error.advice() {
///         Advice::Retry => tokio::time::sleep(pause).await,
///         Advice::Reset => drop(sandbox.reset().await?),
///         Advice::Rebuild => {
///             sandbox.shutdown().await;
///             sandbox.boot().await?;
///         }
///         _ => return Ok(false),
///     }
///     Ok(true)
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// # let sandbox = chv_sandbox::sandbox::StubSandbox::default();
/// # // Not booted, which is an error with the advice to rebuild.
/// # let job = ToolInvocation::new("echo", serde_json::json!({ "message": "hello" }));
/// # assert_eq!(dispatch(&sandbox, &job).await?.execution.stdout.text(), "hello\n");
/// # Ok(())
/// # }
/// ```
///
/// # Codes
///
#[doc = include_str!("codes.md")]
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration of a [pool](super::Pool) or a [blocking](crate::blocking) sandbox is refused, or a pool's
    /// sandboxes need more memory than its budget has.
    #[error("the configuration of the sandbox or the pool cannot be used")]
    Config(#[source] Arc<ConfigError>),
    /// A thread can't be started: the one of the [blocking](crate::blocking) sandboxes of this process, or one that
    /// packs or extracts files.
    #[error("cannot start a thread for the sandboxes of this process")]
    NoThread(#[source] Arc<io::Error>),
    /// No sandbox can run on this host or with this VMM: there is no KVM, no VMM, or the VMM's release doesn't fit.
    #[error("no sandbox can run here; `chv-sandbox doctor` says what this host lacks")]
    NotAvailable(#[source] Arc<Unavailable>),
    /// The sandbox's present state doesn't allow the call. See the table in the [module](super).
    #[error("the sandbox is {state}, so it cannot {action}")]
    NotReady {
        /// The call, as a verb: `run a tool`, `be reset`.
        action: &'static str,
        /// The state at the time of the call.
        state: WireState,
    },
    /// The sandbox halted after a reset that was not verified, and takes no call but a shutdown.
    #[error(
        "the sandbox has halted after an unverified reset, so it cannot {action}; shut it down: {failed}"
    )]
    Halted {
        /// The call, as a verb.
        action: &'static str,
        /// What the reset found.
        failed: Arc<FailedReset>,
    },
    /// The [pool](super::Pool) halted after two unverified resets in a row, and hands out no sandbox. This is what the
    /// second of them found.
    #[error("the pool has halted after two unverified resets in a row; shut it down: {0}")]
    PoolHalted(Arc<FailedReset>),
    /// The sandbox takes no tool before it is reset.
    #[error("the sandbox takes no tool until it is reset: {reason}")]
    NeedsReset {
        /// What made the reset necessary.
        reason: ResetReason,
    },
    /// The VM didn't start, or its boot was not verified. What had been started is removed.
    #[error("the sandbox did not boot")]
    BootFailed(#[source] Arc<BootFailure>),
    /// The guest gave no answer for a tool within the tool's deadline and
    /// [`tool_grace`](crate::limits::TimeLimits::tool_grace). The tool may still run.
    #[error("the guest gave no answer within the tool's {} ms and the grace period", deadline.as_millis())]
    ToolTimeout {
        /// The invocation's own deadline, without the grace.
        deadline: Duration,
        /// The error of the channel or of the run's connection.
        source: vsock::Error,
    },
    /// The invocation can't be sent to the guest. Nothing ran, and the sandbox stays ready.
    #[error("the tool was not sent to the guest")]
    ToolRefused(#[source] ToolRefusal),
    /// A reset ended a tool or a transfer that was under way.
    #[error("a reset ended the tool or the transfer")]
    ResetInterrupted,
    /// A reset was made, and a source disagrees with its baseline. The sandbox has halted.
    #[error("the reset diverged from the golden snapshot: {0}")]
    ResetDivergence(Arc<FailedReset>),
    /// A reset was made twice, and a source gave no answer either time. The sandbox has halted.
    #[error("the reset could not be verified: {0}")]
    ResetTimeout(Arc<FailedReset>),
    /// The VM could not be reverted, so there was nothing to verify. The sandbox has failed and may be reset again.
    #[error("the sandbox could not be reverted")]
    ResetFailed(#[source] Arc<machine::Error>),
    /// The golden snapshot isn't what its manifest says, or was changed while it was restored. No VM runs on: a VM that
    /// ran before the reset takes no tool any more. The sandbox has failed and may be reset again once the golden
    /// snapshot is what it was.
    #[error("the sandbox was not reverted, since its golden snapshot cannot be used")]
    ResetRefused(#[source] Arc<golden::Error>),
    /// The VMM's process ended by itself while no boot or reset was under way.
    #[error("the VMM ended by itself: {0}")]
    VmmEnded(Arc<vmm::Ended>),
    /// The channel to the guest failed, or the connection of a run or a transfer did. A reset makes a new channel.
    #[error("the channel to the guest failed")]
    Channel(#[source] vsock::Error),
    /// The files were not transferred, and none of them is at the target. The sandbox's state is unchanged. After the
    /// codes [`Truncated`](FileCode::Truncated) and [`Digest`](FileCode::Digest) it should be reset all the same: the
    /// tar stream or its digest was wrong, so the guest can't be relied on. After the other codes the sandbox may be
    /// used further.
    #[error("the files were not transferred")]
    Files(#[source] Arc<TransferError>),
    /// A shutdown ended the call.
    #[error("the sandbox was shut down meanwhile")]
    ShutDown,
    /// A [pool](super::Pool) had no clean sandbox for the caller within the caller's deadline.
    #[error("the pool had no clean sandbox to hand out within {waited:.1?}")]
    AcquireTimeout {
        /// The deadline of the call.
        waited: Duration,
        /// The error of the last sandbox that could not be booted or reset, if none has succeeded since.
        source: Option<Arc<Error>>,
    },
    /// The [pool](super::Pool) was drained or shut down.
    #[error("the pool is closed, so it hands out no sandbox")]
    PoolClosed,
}

/// Why an invocation can't be sent to the guest: the cause of [`Error::ToolRefused`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolRefusal {
    /// The name is empty, or longer than a tool's name may be.
    #[error("no tool can have this name")]
    Name(#[source] ToolNameError),
    /// The invocation has a standard input, an environment or a directory, and was given to
    /// [`execute_tool`](super::Sandbox::execute_tool). Only [`start`](super::Sandbox::start) takes such an invocation.
    #[error(
        "an invocation with standard input, environment or directory has to be started with streams"
    )]
    NeedsStreams,
    /// The environment has a name or a value that no process can have, or is too large.
    #[error("no tool can be given this environment")]
    Environment(#[source] EnvironmentError),
    /// The guest doesn't announce the extension `run/1`, so it runs no tools with streams.
    #[error("the guest runs no tools with streams")]
    NotSupported(#[source] vsock::Error),
    /// This process can't create the pair of sockets for a run without a guest, such as one of a
    /// [`StubSandbox`](super::StubSandbox).
    #[error("cannot create the sockets of the run")]
    NoSockets(#[source] Arc<io::Error>),
    /// The invocation, with its parameters, is larger than a frame may be.
    #[error("the invocation is too large for a frame")]
    TooLarge(#[source] vsock::Error),
}

/// What the caller does after an [`Error`]. It serialises in snake case, such as `skip_tool`.
///
/// A dispatch is all that happens between two resets: the pushes, the tools and the pulls. A reset removes the files
/// that were pushed, and so does a new boot. After [`Reset`](Self::Reset) and [`Rebuild`](Self::Rebuild) the whole
/// dispatch is therefore repeated, push included, and the output of the failed attempt is discarded, with the files
/// that it pulled: a pull replaces nothing, so a dispatch pulls to a temporary path and renames it after the verified
/// reset.
///
/// Bound the number of attempts of a dispatch, for example to five: a tool that breaks the channel in each attempt gets
/// the advice to reset each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Advice {
    /// Make the same call again after a pause: 100 milliseconds at first, and longer after each further attempt.
    ///
    /// After [`Error::AcquireTimeout`] and [`TooManyStreams`](vsock::Error::TooManyStreams) only the call that failed
    /// is repeated; the latter has the code `SANDBOX_TOO_MANY_STREAMS`. [`Error::ResetInterrupted`] and
    /// [`Error::NotReady`] mean that another task resets or boots the sandbox, which removes the pushed files: the whole
    /// dispatch is repeated.
    Retry,
    /// Call [`reset`](super::Sandbox::reset), then repeat the whole dispatch. No pause is needed. If the reset itself
    /// was the call that failed, call it again, and discard the output of the dispatch before it. If several resets
    /// fail in a row, shut the sandbox down.
    Reset,
    /// Shut this sandbox down and boot it anew, or give it back to its pool and acquire another. Then repeat the whole
    /// dispatch.
    Rebuild,
    /// Go on without this tool or these files. The same call would be refused again. If files were pushed or a tool ran
    /// before, reset the sandbox first.
    SkipTool,
    /// Stop. Either a person has to correct the host, the configuration or the golden snapshot, or the caller itself
    /// has shut the sandbox or the pool down.
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

/// Why no sandbox can run on this host or with this VMM: the cause of [`Error::NotAvailable`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// There is no KVM, or this user may not use it.
    #[error("KVM cannot be used")]
    Kvm(#[source] vmm::NoKvm),
    /// The VMM's executable wasn't found, can't be executed, or can't be started with the layers of confinement that
    /// are required.
    #[error("there is no usable VMM")]
    Vmm(#[source] vmm::Error),
    /// The VMM's release is older than [`OLDEST_RELEASE`](super::OLDEST_RELEASE).
    #[error("the VMM is {release}; {oldest} is the oldest that is supported")]
    TooOld {
        /// The VMM's release.
        release: Release,
        /// The oldest release that is supported.
        oldest: Release,
    },
    /// The VMM's release isn't the one that made the golden snapshot.
    #[error("the VMM is {release}, the golden snapshot was minted by {minted_by}: mint it again")]
    AnotherRelease {
        /// The VMM's release.
        release: Release,
        /// The release in the manifest.
        minted_by: String,
    },
}

/// Why a sandbox didn't boot: the cause of [`Error::BootFailed`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootFailure {
    /// The VMM didn't start, the VM didn't boot or could not be restored, or the guest gave no answer.
    #[error("the VM could not be started")]
    Machine(#[source] machine::Error),
    /// The golden snapshot can't be used: it is missing, damaged, not trusted, or was made on another host.
    #[error("the golden snapshot cannot be used")]
    Golden(#[source] golden::Error),
    /// The VM was restored, and its verification failed: [`Error::ResetDivergence`] or [`Error::ResetTimeout`].
    #[error("the restored VM does not match the golden snapshot's baselines")]
    Unverified(#[source] Error),
}

/// A reset (or the restore of a boot) that was made, and whose verification failed.
///
/// `Display` shows each check that failed, with what it found and what it expected, and the directory of the evidence.
#[derive(Debug)]
pub struct FailedReset {
    /// What the reset found: the state in the protocol's shape, and the report with every check.
    pub outcome: ResetOutcome,
    /// The directory with the evidence: the writable disks as they were found, the report, the last events, the VMM's
    /// log and the console. `None` if no evidence could be written; the log says why.
    pub evidence: Option<PathBuf>,
}

impl fmt::Display for FailedReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks = self.outcome.report.checks.iter();
        let bad = checks.filter(|check| {
            matches!(
                check.outcome,
                CheckOutcome::Disagreed | CheckOutcome::Silent
            )
        });
        for (n, check) in bad.enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            let (source, found, expected) = (check.source, &check.found, &check.expected);
            write!(
                f,
                "{separator}{source}: found \"{found}\", expected \"{expected}\""
            )?;
        }
        match &self.evidence {
            Some(path) => write!(f, " (evidence in {})", path.display()),
            None => Ok(()),
        }
    }
}

impl Error {
    /// The stable code in the [agent's protocol](super#the-agents-protocol): see the [table](Error#codes).
    pub fn code(&self) -> &'static str {
        match self {
            Error::NotAvailable(_) | Error::Config(_) | Error::NoThread(_) => {
                "SANDBOX_NOT_AVAILABLE"
            }
            Error::NotReady { .. } | Error::VmmEnded(_) => "SANDBOX_NOT_READY",
            Error::NeedsReset { .. } => "SANDBOX_RESET_REQUIRED",
            Error::Halted { .. } | Error::PoolHalted(_) => "SANDBOX_HALTED",
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

    /// What the caller does next: see the [table](Error#codes).
    pub fn advice(&self) -> Advice {
        match self {
            Error::NotAvailable(_)
            | Error::Config(_)
            | Error::NoThread(_)
            | Error::ResetRefused(_)
            | Error::ShutDown
            | Error::PoolClosed
            | Error::PoolHalted(_) => Advice::GiveUp,
            Error::NotReady { state, .. } => match state {
                WireState::Booting | WireState::Resetting | WireState::Ready => Advice::Retry,
                WireState::Failed | WireState::NotBooted => Advice::Rebuild,
            },
            Error::NeedsReset { .. }
            | Error::ToolTimeout { .. }
            | Error::ResetFailed(_)
            | Error::VmmEnded(_) => Advice::Reset,
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
                // The guest sent a broken or wrong stream, so it is reset before it is used again.
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

    /// Whether the call failed before anything of the tool was sent to the guest.
    pub(super) fn is_unsent(&self) -> bool {
        match self {
            Error::NotReady { .. }
            | Error::NeedsReset { .. }
            | Error::Halted { .. }
            | Error::PoolHalted(_)
            | Error::ToolRefused(_) => true,
            Error::Channel(error) => error.is_duplicate(),
            _ => false,
        }
    }

    /// What the unverified reset found. `None` unless this is [`ResetDivergence`](Error::ResetDivergence),
    /// [`ResetTimeout`](Error::ResetTimeout), [`Halted`](Error::Halted), [`PoolHalted`](Error::PoolHalted), or
    /// [`BootFailed`](Error::BootFailed) because of an unverified restore.
    pub fn failed_reset(&self) -> Option<&FailedReset> {
        self.failed().map(|failed| &**failed)
    }

    /// [`failed_reset`](Self::failed_reset), shared.
    pub(super) fn shared_failed_reset(&self) -> Option<Arc<FailedReset>> {
        self.failed().map(Arc::clone)
    }

    fn failed(&self) -> Option<&Arc<FailedReset>> {
        match self {
            Error::ResetDivergence(failed)
            | Error::ResetTimeout(failed)
            | Error::PoolHalted(failed)
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
