//! The report of a reset: what was checked, against what, and what each step cost.

use serde::Serialize;

use crate::machine::{DiskRole, Step};
use crate::overlay::{Access, Digest};

/// How a reset went, in detail. Serialises as JSON; its shape may grow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResetReport {
    /// How the sandbox was reverted: `in_place`, in the VMM that was there.
    pub strategy: &'static str,
    /// Which try this was, from 1. A second follows only on silence.
    pub attempt: u32,
    /// Every check, the decisive ones first.
    pub checks: Vec<Check>,
    /// Each disk that was hashed.
    pub disks: Vec<HashedDisk>,
    /// Each step with its time, in order.
    pub steps: Vec<Step>,
    /// The whole, in microseconds.
    pub micros: u64,
    /// Whether the guest's random pool was reseeded. Restored guests share it otherwise.
    pub reseeded: bool,
    /// Whether the guest's clock was set. It shows the time of the snapshot otherwise.
    pub clock_set: bool,
}

impl ResetReport {
    /// The report of a reset after which nothing is checked.
    pub(super) fn unverified(strategy: &'static str, steps: Vec<Step>) -> Self {
        ResetReport {
            strategy,
            attempt: 1,
            checks: Vec::new(),
            disks: Vec::new(),
            micros: steps.iter().map(|step| step.micros).sum(),
            steps,
            reseeded: false,
            clock_set: false,
        }
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
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It said what it should.
    Agreed,
    /// It said something else.
    Disagreed,
    /// It said nothing in time.
    Silent,
    /// It couldn't be asked: on recordings there is no process, an old guest holds no nonce.
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
    /// How it was read.
    pub access: Access,
    /// How long that took, in microseconds.
    pub micros: u64,
}
