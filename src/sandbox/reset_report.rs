//! [`ResetReport`]: the checks of a reset with their baselines, the proofs of its disks, and the duration of its steps.

use std::fmt;

use serde::Serialize;

use super::{OlderGuest, Strategy};
use crate::golden::LoadedMemory;
use crate::machine::{DiskProof, Step, Steps};
use crate::vmm::{Identity, LayerReport};
use crate::vsock::ClockSkew;

/// The details of a reset. It serialises as JSON with these names. Later versions may add fields; no field is removed
/// or changes its meaning.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ResetReport {
    /// How the sandbox was reverted.
    pub strategy: StrategyUsed,
    /// Which VMM serves after the reset. `None` for the stub, which has no VMM.
    pub vmm: Option<VmmUsed>,
    /// How guests get the golden snapshot's memory, and why it can't have changed. `None` if no snapshot was restored.
    pub memory: Option<LoadedMemory>,
    /// The number of the last attempt, from 1. A second attempt follows only if a source gave no answer in the first.
    pub attempt: u32,
    /// Every check. Those of the three sources whose baselines the agent's protocol has come first.
    pub checks: Vec<ResetCheck>,
    /// The proof of each disk.
    pub disks: Vec<DiskProof>,
    /// The process that answered on the api-socket, if its identity was proved.
    pub vmm_identity: Option<Identity>,
    /// The layers of confinement around the VMM that serves after the reset, and whether each is in force. Empty for a
    /// VMM that another program runs.
    pub layers: Vec<LayerReport>,
    /// Each step with its duration, in order.
    pub steps: Vec<Step>,
    /// The duration of the whole reset, in microseconds.
    pub micros: u64,
    /// Whether the guest's random pool was reseeded. Without that, all guests that are restored from one snapshot have
    /// the same pool.
    pub reseeded: bool,
    /// Whether the guest's clock was set. Without that, it shows the time at which the snapshot was made.
    pub clock_set: bool,
    /// How far the guest's clock is from the host's after the reset, as a range. `None` if the guest doesn't say.
    pub clock: Option<ClockSkew>,
}

impl ResetReport {
    /// The report of a reset that verifies nothing.
    pub(super) fn unverified(strategy: StrategyUsed, vmm: Option<VmmUsed>, steps: &Steps) -> Self {
        ResetReport {
            strategy,
            vmm,
            memory: None,
            attempt: 1,
            checks: Vec::new(),
            disks: Vec::new(),
            vmm_identity: None,
            layers: Vec::new(),
            micros: steps.micros(),
            steps: steps.so_far().to_vec(),
            reseeded: false,
            clock_set: false,
            clock: None,
        }
    }
}

/// What [`verify`](super::verify::verify) needs beside the readings and the manifest.
#[derive(Debug)]
pub(super) struct VerificationContext<'a> {
    pub(super) strategy: StrategyUsed,
    pub(super) vmm: VmmUsed,
    pub(super) memory: &'a LoadedMemory,
    pub(super) layers: &'a [LayerReport],
    pub(super) attempt: u32,
    /// Whether a guest that lacks an extension passes.
    pub(super) older_guest: OlderGuest,
    pub(super) steps: &'a Steps,
}

/// How a sandbox was reverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StrategyUsed {
    /// The snapshot was restored in another VMM process.
    Fresh,
    /// The snapshot was restored in the VMM process that served.
    InPlace,
    /// Scaffold mode: the kernel was booted again from the disks as they were given.
    ColdBoot,
    /// Nothing was reverted: the stub has no VM.
    Nothing,
}

/// Which VMM serves after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VmmUsed {
    /// A spare, whose VM waited restored and paused.
    Spare,
    /// A VMM process in which no VM had run or been restored before.
    New,
    /// The VMM process that served before the reset.
    Reused,
    /// A VMM that another program runs.
    Attached,
}

impl From<Strategy> for StrategyUsed {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Fresh => StrategyUsed::Fresh,
            Strategy::InPlace => StrategyUsed::InPlace,
        }
    }
}

impl fmt::Display for StrategyUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StrategyUsed::Fresh => "fresh",
            StrategyUsed::InPlace => "in_place",
            StrategyUsed::ColdBoot => "cold_boot",
            StrategyUsed::Nothing => "nothing",
        })
    }
}

impl fmt::Display for VmmUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VmmUsed::Spare => "spare",
            VmmUsed::New => "new",
            VmmUsed::Reused => "reused",
            VmmUsed::Attached => "attached",
        })
    }
}

/// One check of a reset: a source that was read and compared with what is expected of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ResetCheck {
    /// What was read.
    pub source: CheckSource,
    /// The result of the comparison.
    pub outcome: CheckOutcome,
    /// What the source should have said, for people.
    pub expected: String,
    /// What the source said, or why it gave no answer, for people.
    pub found: String,
}

/// What a reset checks. It serialises in snake case, such as `fs_hash`; `Display` gives a name for people, such as
/// `disk digest`.
///
/// [`FsHash`](CheckSource::FsHash), [`OpenFdCount`](CheckSource::OpenFdCount) and
/// [`VmmApiState`](CheckSource::VmmApiState) are the sources whose baselines the agent's protocol has. The others show
/// that these three can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CheckSource {
    /// The SHA-256 and the length of a disk. There is one such check for each disk.
    FsHash,
    /// The number of open descriptors of all guest processes, without sockets.
    OpenFdCount,
    /// The VM's state as the VMM's API says it.
    VmmApiState,
    /// Whether the disk that was hashed is the file that the VMM has open. There is one such check for each disk.
    DiskIdentity,
    /// Whether the guest is the one of the snapshot: whether it knows the nonce that the snapshot's memory holds.
    GuestNonce,
    /// Whether the guest has reseeded its random pool. Without that, all guests of a snapshot have the same pool.
    GuestRandomness,
    /// Whether the guest's clock is right. Without being set, it shows the time at which the snapshot was made.
    GuestClock,
    /// Whether the process that answers on the api-socket is the VMM that was started.
    VmmIdentity,
    /// Whether the VM has the golden snapshot's memory: the VMM has mapped it, or copied it from a file that could not
    /// change.
    GuestMemory,
}

impl fmt::Display for CheckSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            CheckSource::FsHash => "disk digest",
            CheckSource::OpenFdCount => "open descriptors",
            CheckSource::VmmApiState => "VM state",
            CheckSource::DiskIdentity => "identity of the disk",
            CheckSource::GuestNonce => "guest's nonce",
            CheckSource::GuestRandomness => "guest's randomness",
            CheckSource::GuestClock => "guest's clock",
            CheckSource::VmmIdentity => "identity of the VMM",
            CheckSource::GuestMemory => "guest's memory",
        })
    }
}

/// The result of a check. It serialises in snake case, such as `vouched_for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// The source was read and says what is expected.
    Agreed,
    /// The source was not read again. The kernel guarantees that it is unchanged since it was compared: by a read
    /// lease, by fs-verity or by a seal.
    VouchedFor,
    /// The source says something else. The sandbox halts.
    Disagreed,
    /// The source gave no answer in time. The reset is made once more; after a second silence the sandbox halts.
    Silent,
    /// The source could not be read: a VMM that another program runs has no process to look into, or an older guest
    /// lacks the extension. [`OlderGuest`] decides whether such a guest passes.
    NotApplicable,
}
