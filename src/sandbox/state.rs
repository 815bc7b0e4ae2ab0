//! Where a sandbox stands.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Error, FailedReset};

/// Where a sandbox stands, with what belongs to it. See the diagram of the [module](super).
///
/// Serialised and shown as text it is its [state on the wire](Self::wire).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SandboxState {
    /// No VM runs.
    NotBooted,
    /// It is coming up.
    Booting,
    /// It is up, its last reset was verified, and it takes tools.
    Ready,
    /// It is up, and takes no tool until it is reset.
    NeedsReset {
        /// Why.
        reason: ResetReason,
    },
    /// It is being reverted.
    Resetting,
    /// A boot or a reset failed, or the VMM ended by itself. It takes no tool. It may be booted, or reset if it had booted.
    Failed {
        /// Why.
        error: Error,
    },
    /// A reset was not verified. It takes nothing but a shutdown.
    Halted {
        /// What the reset found.
        failed: Arc<FailedReset>,
    },
}

/// The states of the agent's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WireState {
    /// No VM runs.
    NotBooted,
    /// It is coming up.
    Booting,
    /// It is up: [`SandboxState::Ready`] and [`SandboxState::NeedsReset`].
    Ready,
    /// It is being reverted.
    Resetting,
    /// [`SandboxState::Failed`] and [`SandboxState::Halted`].
    Failed,
}

/// Why a sandbox takes no tool until it is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResetReason {
    /// A tool was sent to the guest, and one is all that it runs before a reset
    /// ([`ToolsPerReset::One`](super::ToolsPerReset)).
    ToolRan,
    /// A tool gave no answer in time, or none to its cancellation, so it may still run.
    ToolTimedOut,
    /// The channel to the guest broke, or the connection of a run with streams, of which it isn't known then whether its tool
    /// still runs.
    ChannelBroken,
    /// The evidence of a tool was not consistent.
    EvidenceRejected,
    /// The caller of a tool went away before it had ended, so it may still run.
    CallerGone,
    /// A file of the golden snapshot that the VM goes on to read was opened for writing or replaced.
    GoldenTouched,
}

impl SandboxState {
    /// The state in the agent's protocol.
    pub fn wire(&self) -> WireState {
        match self {
            SandboxState::NotBooted => WireState::NotBooted,
            SandboxState::Booting => WireState::Booting,
            SandboxState::Ready | SandboxState::NeedsReset { .. } => WireState::Ready,
            SandboxState::Resetting => WireState::Resetting,
            SandboxState::Failed { .. } | SandboxState::Halted { .. } => WireState::Failed,
        }
    }

    /// Whether it takes nothing but a shutdown.
    pub fn is_halted(&self) -> bool {
        matches!(self, SandboxState::Halted { .. })
    }
}

impl Serialize for SandboxState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.wire().serialize(serializer)
    }
}

impl fmt::Display for SandboxState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wire().fmt(f)
    }
}

impl fmt::Display for WireState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WireState::NotBooted => "not_booted",
            WireState::Booting => "booting",
            WireState::Ready => "ready",
            WireState::Resetting => "resetting",
            WireState::Failed => "failed",
        })
    }
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResetReason::ToolRan => "a tool ran, and one is all that it runs before a reset",
            ResetReason::ToolTimedOut => "a tool gave no answer in time",
            ResetReason::ChannelBroken => "the channel to the guest broke",
            ResetReason::EvidenceRejected => "the evidence of a tool was not consistent",
            ResetReason::CallerGone => "the caller of a tool went away before it had ended",
            ResetReason::GoldenTouched => {
                "a disk of the golden snapshot that the VM reads was opened for writing or replaced"
            }
        })
    }
}
