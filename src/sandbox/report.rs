//! The report of a reset: what was checked, against what, and what each step cost.

use std::fmt;

use serde::Serialize;

use super::{OlderGuest, Strategy};
use crate::golden::LoadedMemory;
use crate::machine::{DiskProof, Step, Steps};
use crate::vmm::{Identity, LayerReport};
use crate::vsock::ClockSkew;

/// How a reset went, in detail. Serialises as JSON with these names; further fields may come, none goes or changes its
/// meaning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResetReport {
    /// How the sandbox was reverted.
    pub strategy: StrategyUsed,
    /// Which VMM serves now; `None` where there is none: the stub.
    pub vmm: Option<VmmUsed>,
    /// How guests get the golden snapshot's memory, and what that rests on; `None` where no snapshot was restored.
    pub memory: Option<LoadedMemory>,
    /// Which try this was, from 1. A second follows only on silence.
    pub attempt: u32,
    /// Every check, the decisive ones first.
    pub checks: Vec<Check>,
    /// The proof of each disk.
    pub disks: Vec<DiskProof>,
    /// The process that answered on the api-socket, where that was proved.
    pub vmm_identity: Option<Identity>,
    /// The layers of the boundary around the VMM that serves now, and what became of each. Empty for a VMM that another
    /// program runs.
    pub layers: Vec<LayerReport>,
    /// Each step with its time, in order.
    pub steps: Vec<Step>,
    /// The whole, in microseconds.
    pub micros: u64,
    /// Whether the guest's random pool was reseeded. Restored guests share it otherwise.
    pub reseeded: bool,
    /// Whether the guest's clock was set. It shows the time of the snapshot otherwise.
    pub clock_set: bool,
    /// How far the guest's clock is from the host's after that, as a range; `None` where the guest doesn't say.
    pub clock: Option<ClockSkew>,
}

impl ResetReport {
    /// The report of a reset after which nothing is checked.
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

/// What [`verify`](super::verify::verify) needs beside the readings.
#[derive(Debug)]
pub(super) struct VerificationContext<'a> {
    pub(super) strategy: StrategyUsed,
    pub(super) vmm: VmmUsed,
    pub(super) memory: &'a LoadedMemory,
    pub(super) layers: &'a [LayerReport],
    pub(super) attempt: u32,
    /// What the configuration says of an old guest.
    pub(super) older_guest: OlderGuest,
    pub(super) steps: &'a Steps,
}

/// How a sandbox was reverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyUsed {
    /// In another VMM.
    Fresh,
    /// In the VMM that was there.
    InPlace,
    /// Scaffold mode: booted again from the disks as they were given.
    ColdBoot,
    /// There is nothing to revert: the stub.
    Nothing,
}

/// Which VMM serves after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VmmUsed {
    /// A spare, which waited restored and paused.
    Spare,
    /// One in which no VM had been restored.
    New,
    /// The one that served before.
    Reused,
    /// One that another program runs.
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

/// One check of a reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was asked.
    pub source: Source,
    /// How it came out.
    pub outcome: Outcome,
    /// What it should have said.
    pub expected: String,
    /// What it said, or why it said nothing.
    pub found: String,
}

/// What is asked after a reset. The first three are the sources whose baselines are the agent's protocol; the
/// others guard them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The SHA-256 of each disk.
    FsHash,
    /// The guest's open descriptors.
    OpenFdCount,
    /// The VM's state.
    VmmApiState,
    /// That the disk which was hashed is the disk which the VMM serves.
    DiskIdentity,
    /// That the guest is the one of the snapshot, by the secret in its memory.
    GuestNonce,
    /// That the guest has reseeded its random pool, which it shares with the snapshot's other guests otherwise.
    GuestRandomness,
    /// That the guest's clock is right, which shows the time of the snapshot otherwise.
    GuestClock,
    /// That the process which answers on the api-socket is the VMM that was started.
    VmmIdentity,
    /// That the VM's memory is the golden snapshot's: the VMM has mapped it, or copied it from a file that could not change.
    GuestMemory,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It said what it should.
    Agreed,
    /// It was not read: the kernel's word stands that it is what was compared before.
    VouchedFor,
    /// It said something else.
    Disagreed,
    /// It said nothing in time.
    Silent,
    /// It couldn't be asked: on recordings there is no process, an old guest holds no nonce and can't set its clock.
    /// Whether an old guest passes, [`OlderGuest`] decides.
    NotApplicable,
}
