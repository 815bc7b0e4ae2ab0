//! [`RunReport`]: how a run with streams ended, and the evidence of what crossed its connection.

use std::time::Duration;

use super::super::{ToolOutcome, ToolOutput};
use crate::guest::protocol::{RunEnd, RunOutcome};
use crate::sanitize;

/// The longest reason of the guest that is kept, in characters.
const MAX_REASON: usize = 4096;

/// How a run with streams ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunReport {
    /// How the tool ended.
    pub outcome: ToolOutcome,
    /// How much crossed the run's connection. The host has checked that the guest says the same.
    pub evidence: StreamEvidence,
    /// From the start of the run until its end was read, as the host measured it.
    pub took: Duration,
}

impl RunReport {
    pub(super) fn of(end: RunEnd, took: Duration) -> RunReport {
        RunReport {
            outcome: end.outcome.into(),
            evidence: StreamEvidence {
                stdout_total: end.stdout_total,
                stderr_total: end.stderr_total,
                is_cut: end.cut,
                to_guest_hash: end.to_guest_hash,
                to_host_hash: end.to_host_hash,
            },
            took,
        }
    }
}

/// How much crossed the connection of a run, and the last links of its two evidence chains. The host has computed both
/// chains from the records that it sent and received, and compared them with the guest's. See
/// [`RunChain`](crate::guest::protocol::RunChain).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamEvidence {
    /// How many bytes the tool wrote to its standard output.
    pub stdout_total: u64,
    /// How many bytes the tool wrote to its standard error.
    pub stderr_total: u64,
    /// Whether the guest's limit of the tool's output was reached. Then fewer bytes came than the totals say.
    pub is_cut: bool,
    /// The last link of the chain over the records from host to guest.
    pub to_guest_hash: String,
    /// The last link of the chain over the records from guest to host.
    pub to_host_hash: String,
}

/// The result of [`RunningTool::collect_output`](super::RunningTool::collect_output): how a run ended, and its output.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectedRun {
    /// How the run ended.
    pub report: RunReport,
    /// What the tool wrote to its standard output, up to the limit of the call.
    pub stdout: ToolOutput,
    /// What the tool wrote to its standard error, up to the limit of the call.
    pub stderr: ToolOutput,
}

impl From<RunOutcome> for ToolOutcome {
    fn from(outcome: RunOutcome) -> ToolOutcome {
        let line = |reason: String| sanitize::line(&reason, MAX_REASON);
        match outcome {
            RunOutcome::Exited { code } => ToolOutcome::Exited { code: code.into() },
            RunOutcome::Signalled { signal } => ToolOutcome::Signalled {
                signal: signal.into(),
            },
            RunOutcome::DeadlineExceeded {} => ToolOutcome::DeadlineExceeded,
            RunOutcome::Cancelled {} => ToolOutcome::Cancelled,
            RunOutcome::NoSuchTool {} => ToolOutcome::NoSuchTool,
            RunOutcome::Refused { reason } => ToolOutcome::Refused {
                reason: line(reason),
            },
            RunOutcome::GuestFailed { reason } => ToolOutcome::GuestFailed {
                reason: line(reason),
            },
        }
    }
}

impl ToolOutcome {
    /// The outcome as a guest reports it for a run. An exit code or a signal outside of 0 to 255, and an unspecified
    /// outcome, become a failure of the guest.
    pub(super) fn of_run(&self) -> RunOutcome {
        let failed = || RunOutcome::GuestFailed {
            reason: self.to_string(),
        };
        match self {
            ToolOutcome::Exited { code } => match u8::try_from(*code) {
                Ok(code) => RunOutcome::Exited { code },
                Err(_) => failed(),
            },
            ToolOutcome::Signalled { signal } => match u8::try_from(*signal) {
                Ok(signal) => RunOutcome::Signalled { signal },
                Err(_) => failed(),
            },
            ToolOutcome::DeadlineExceeded => RunOutcome::DeadlineExceeded {},
            ToolOutcome::Cancelled => RunOutcome::Cancelled {},
            ToolOutcome::NoSuchTool => RunOutcome::NoSuchTool {},
            ToolOutcome::Refused { reason } => RunOutcome::Refused {
                reason: sanitize::line(reason, MAX_REASON),
            },
            ToolOutcome::GuestFailed { reason } => RunOutcome::GuestFailed {
                reason: sanitize::line(reason, MAX_REASON),
            },
            ToolOutcome::Unspecified { .. } => failed(),
        }
    }
}
