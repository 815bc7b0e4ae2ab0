//! How a run with streams ended.

use std::time::Duration;

use super::super::{ToolOutcome, ToolOutput};
use crate::guest::protocol::{RunEnd, RunOutcome};
use crate::sanitize;

/// How long the guest's reason may be, in characters.
const MAX_REASON: usize = 4096;

/// How a run with streams ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunReport {
    /// How the tool ended.
    pub outcome: ToolOutcome,
    /// How much crossed the run's connection, as guest and host agree.
    pub evidence: StreamEvidence,
    /// From the start until the end was read, as the host measured it.
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

/// How much crossed the connection of a run, and the last links of its two evidence chains. The host has computed both of what it
/// sent and received, and the guest says the same. See [`RunChain`](crate::guest::protocol::RunChain).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamEvidence {
    /// The bytes that the tool wrote to its standard output.
    pub stdout_total: u64,
    /// The bytes that it wrote to its standard error.
    pub stderr_total: u64,
    /// Whether the tool's limit of output was reached: less came than the totals say then.
    pub is_cut: bool,
    /// The last link of the chain of the records that the guest has taken.
    pub to_guest_hash: String,
    /// The last link of the chain of the records that came.
    pub to_host_hash: String,
}

/// A run that has ended, with its output: see [`RunningTool::collect`](super::RunningTool::collect_output).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectedRun {
    /// How it ended.
    pub report: RunReport,
    /// What it wrote to its standard output.
    pub stdout: ToolOutput,
    /// What it wrote to its standard error.
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
    /// The same as a guest says it of a run. A code or a signal that no tool can end with, and an outcome that isn't known, are
    /// a failure of the guest.
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
