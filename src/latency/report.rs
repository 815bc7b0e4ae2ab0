//! The report: what was measured, on what, and how it came out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Distribution, HostFacts, RunsOn};
use crate::report_json::{self, ReportError};

/// The version of the report's schema.
pub const SCHEMA_VERSION: u32 = 1;

/// What was measured, on what, and how it came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of this crate.
    pub crate_version: String,
    /// When the first case began.
    pub began_at: Timestamp,
    /// When the last case ended.
    pub ended_at: Timestamp,
    /// The command line, if it was a command.
    pub command_line: Vec<String>,
    /// What it ran on: hardware, an emulator, recordings.
    pub runs_on: RunsOn,
    /// The host.
    pub host: HostFacts,
    /// The VMM.
    pub vmm: VmmRelease,
    /// How often.
    pub options: Options,
    /// Whether it was interrupted. The case that was under way then, and those after it, say so.
    pub interrupted: bool,
    /// Each case.
    pub cases: Vec<CaseReport>,
}

/// Which VMM it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmRelease {
    /// Its release, as `v53.0`: what `vmm.ping` answered, or that of the recordings.
    pub release: Option<String>,
    /// Why the release isn't known.
    pub unknown_because: Option<String>,
}

/// How often was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The iterations of each case, of all workers together.
    pub iterations: u64,
    /// The iterations of each worker that came before and weren't measured.
    pub warm_up: u64,
    /// How many bytes of output the step `stream` reads.
    pub stream_bytes: u64,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// The golden snapshot's directory; null on recordings.
    pub golden: Option<String>,
    /// The guest's memory, in MiB; null on recordings, and where the golden snapshot can't be opened.
    pub memory_mib: Option<u64>,
    /// The guest's vCPUs; null likewise.
    pub vcpus: Option<u32>,
    /// How a sandbox is reset: `in_place` or `fresh`.
    pub strategy: String,
    /// How many spares wait; null with `in_place`.
    pub spares: Option<u32>,
    /// How many sandboxes were used at the same time.
    pub at_once: u32,
    /// Whether it came to its end.
    #[serde(flatten)]
    pub state: CaseState,
    /// How many iterations were measured.
    pub iterations: u64,
    /// How long the case took, with its boots and its warm-up, in microseconds.
    pub micros: u64,
    /// How the guests got their memory: `mapped` or `copied`; null where no reset was made.
    pub memory: Option<String>,
    /// How many of the measured resets were served by which VMM: `spare`, `new`, `reused` or `attached`. With too few
    /// spares for the pace some resets of a case with spares are those of a new VMM.
    pub vmms: BTreeMap<String, u64>,
    /// The layers of the boundary around the VMM that served after the first measured reset. Empty on recordings, which
    /// have no VMM process.
    pub layers: Vec<LayerFacts>,
    /// Each step, in the order of an iteration.
    pub steps: Vec<StepReport>,
    /// The steps of a reset, in their order. Their means are parts of the mean of `reset`.
    pub reset_steps: Vec<StepReport>,
    /// The steps that this case can't have, with the reason.
    pub not_measured: Vec<NotMeasured>,
}

/// Whether a case came to its end. In JSON the field `state`, with others beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum CaseState {
    /// Every iteration was measured.
    Complete,
    /// An iteration failed, which ended the case. Its figures are those of the iterations before.
    Failed {
        /// What failed.
        failure: Failure,
    },
    /// It could not begin. It has no figures.
    Skipped {
        /// Why.
        failure: Failure,
    },
    /// A signal came first. Its figures are those of the iterations before.
    Interrupted,
}

/// What kept a case from its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed, as `tool`; `open` before the first.
    pub step: String,
    /// A code that stays the same: that of [`sandbox::Error`](crate::sandbox::Error#codes), or one that begins with
    /// `LATENCY_`.
    pub code: String,
    /// The error with its causes. It may quote a guest or a VMM.
    pub error: String,
}

/// A layer of the boundary around a VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// Its name, as `landlock`.
    pub layer: String,
    /// `in_force`, `missing` or `left_out`.
    pub state: String,
    /// How much of it is in force, or why it is missing.
    #[serde(default)]
    pub detail: String,
}

/// The times of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step's name. See the [table](super#the-steps).
    pub name: String,
    /// Its times.
    #[serde(flatten)]
    pub times: Distribution,
}

/// A step that a case can't have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotMeasured {
    /// The step.
    pub step: String,
    /// Why.
    pub reason: String,
}

impl LatencyReport {
    /// Reads a report as JSON.
    ///
    /// # Errors
    ///
    /// [`ReportError::Version`] for one of another schema, [`ReportError::Malformed`] for anything else.
    pub fn from_json(json: &[u8]) -> Result<LatencyReport, ReportError> {
        report_json::parse(json, "report of latencies", SCHEMA_VERSION)
    }

    /// Whether every case came to its end.
    pub fn is_complete(&self) -> bool {
        let mut cases = self.cases.iter();
        !self.interrupted && cases.all(|case| case.state == CaseState::Complete)
    }
}

impl CaseReport {
    /// The times of a step, if it has any.
    pub fn step(&self, name: &str) -> Option<&Distribution> {
        let mut steps = self.steps.iter();
        let step = steps.find(|step| step.name == name)?;
        (step.times.count > 0).then_some(&step.times)
    }
}
