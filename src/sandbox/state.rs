//! The states of a sandbox: [`SandboxState`] in Rust, [`WireState`] in the agent's protocol.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Error, FailedReset};

/// The state of a sandbox, with the reason for it where there is one.
///
/// The [module](super) has a diagram of the states and a table of the calls that each one allows. `Display` and
/// `Serialize` show only the [state on the wire](Self::wire).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SandboxState {
    /// No VM runs: before the first boot, and after a shutdown.
    NotBooted,
    /// A boot is under way.
    Booting,
    /// The VM runs and the sandbox takes tools. Its boot or its last reset was verified, except in scaffold mode.
    Ready,
    /// The VM runs, and the sandbox takes no tool until it is reset.
    NeedsReset {
        /// What made the reset necessary.
        reason: ResetReason,
    },
    /// A reset is under way.
    Resetting,
    /// A boot or a reset failed, or the VMM ended by itself. The sandbox takes no tool. It may be booted again, or
    /// reset if it had booted.
    Failed {
        /// The error of the boot or the reset, or [`Error::VmmEnded`].
        error: Error,
    },
    /// A reset was made and not verified. The sandbox takes no call but a shutdown.
    Halted {
        /// What the reset found, and where its evidence is kept.
        failed: Arc<FailedReset>,
    },
}

/// The states of the [agent's protocol](super#the-agents-protocol), coarser than [`SandboxState`]. They serialise in
/// snake case, such as `not_booted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WireState {
    /// [`SandboxState::NotBooted`].
    NotBooted,
    /// [`SandboxState::Booting`].
    Booting,
    /// [`SandboxState::Ready`] and [`SandboxState::NeedsReset`].
    Ready,
    /// [`SandboxState::Resetting`].
    Resetting,
    /// [`SandboxState::Failed`] and [`SandboxState::Halted`].
    Failed,
}

/// Why a sandbox takes no tool until it is reset. It serialises in snake case, such as `tool_ran`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResetReason {
    /// A tool was sent to the guest, and the sandbox is configured to run one tool between two resets
    /// ([`ToolsPerReset::One`](super::ToolsPerReset::One)).
    ToolRan,
    /// The guest didn't answer a tool, or the cancellation of a tool, in time. The tool may still run.
    ToolTimedOut,
    /// The channel to the guest broke, or the connection of a run with streams did. The tool may still run.
    ChannelBroken,
    /// The evidence chain of a tool doesn't match the output that came.
    EvidenceRejected,
    /// The caller of a tool dropped its future or its [`RunningTool`](super::RunningTool) before the tool had ended.
    /// The tool may still run.
    CallerGone,
    /// A disk of the golden snapshot that the VM still reads was opened for writing, changed or replaced on the host.
    GoldenTouched,
}

impl SandboxState {
    /// The state as the agent's protocol names it.
    pub fn wire(&self) -> WireState {
        match self {
            SandboxState::NotBooted => WireState::NotBooted,
            SandboxState::Booting => WireState::Booting,
            SandboxState::Ready | SandboxState::NeedsReset { .. } => WireState::Ready,
            SandboxState::Resetting => WireState::Resetting,
            SandboxState::Failed { .. } | SandboxState::Halted { .. } => WireState::Failed,
        }
    }

    /// Whether the sandbox has halted and takes no call but a shutdown.
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
            ResetReason::ToolRan => {
                "a tool ran, and the sandbox runs one tool between two resets (tools_per_reset)"
            }
            ResetReason::ToolTimedOut => "the guest did not answer a tool in time",
            ResetReason::ChannelBroken => "the channel to the guest broke",
            ResetReason::EvidenceRejected => "the evidence of a tool does not match its output",
            ResetReason::CallerGone => "the caller of a tool stopped waiting before the tool ended",
            ResetReason::GoldenTouched => {
                "a disk of the golden snapshot that the VM reads was opened for writing or replaced"
            }
        })
    }
}
