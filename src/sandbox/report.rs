//! The report of a reset: what was checked, against what, and what each step cost.

use std::fmt;

use serde::Serialize;

use super::OlderGuest;
use crate::golden::LoadedMemory;
use crate::machine::{DiskProof, DiskRole, Step};
use crate::overlay::{Access, Digest, Work};
use crate::vmm::{Identity, LayerReport};
use crate::vsock::ClockSkew;

/// How a reset went, in detail. Serialises as JSON with these names; further fields may come, none goes or changes its
/// meaning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResetReport {
    /// How the sandbox was reverted.
    pub strategy: StrategyUsed,
    /// How guests get the golden snapshot's memory, and what that rests on; `None` where no snapshot was restored.
    pub memory: Option<LoadedMemory>,
    /// Which try this was, from 1. A second follows only on silence.
    pub attempt: u32,
    /// Every check, the decisive ones first.
    pub checks: Vec<Check>,
    /// Each disk that was hashed.
    pub disks: Vec<HashedDisk>,
    /// Who answered on the api-socket, where that was proved.
    pub vmm: Option<Identity>,
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
    pub(super) fn unverified(strategy: StrategyUsed, steps: Vec<Step>) -> Self {
        ResetReport {
            strategy,
            memory: None,
            attempt: 1,
            checks: Vec::new(),
            disks: Vec::new(),
            vmm: None,
            layers: Vec::new(),
            micros: steps.iter().map(|step| step.micros).sum(),
            steps,
            reseeded: false,
            clock_set: false,
            clock: None,
        }
    }
}

/// What [`verify`](super::verify::verify) needs beside the readings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct VerificationContext {
    pub(super) strategy: StrategyUsed,
    pub(super) memory: LoadedMemory,
    pub(super) layers: Vec<LayerReport>,
    pub(super) attempt: u32,
    /// What the configuration says of an old guest.
    pub(super) older_guest: OlderGuest,
}

/// How a sandbox was reverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyUsed {
    /// In the VMM that was there.
    InPlace,
    /// In a VMM that was started for it.
    Respawn,
    /// By a spare that had been prepared.
    Standby,
    /// Scaffold mode: booted again from the disks as they were given.
    ColdBoot,
    /// There is nothing to revert: the stub.
    Nothing,
}

impl StrategyUsed {
    /// The name in the report and in spans.
    pub fn name(self) -> &'static str {
        match self {
            StrategyUsed::InPlace => "in_place",
            StrategyUsed::Respawn => "respawn",
            StrategyUsed::Standby => "standby",
            StrategyUsed::ColdBoot => "cold_boot",
            StrategyUsed::Nothing => "nothing",
        }
    }
}

impl fmt::Display for StrategyUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

/// A disk as it was hashed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HashedDisk {
    /// Which disk.
    pub role: DiskRole,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// When it was hashed.
    pub proof: DiskProof,
    /// How it was read; `None` where it was held, and not read.
    pub access: Option<Access>,
    /// What that took, in bytes.
    pub work: Work,
    /// How long that took, in microseconds.
    pub micros: u64,
}
