//! [`LatencyReport`]: the result of a measurement, and its JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Distribution;
use crate::host_facts::{HostFacts, RunsOn};
use crate::report_json::{self, ReportError};

/// The version of the report's schema.
pub const SCHEMA_VERSION: u32 = 1;

/// The result of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// The platform: hardware, an emulator or recordings.
    pub runs_on: RunsOn,
    /// The host.
    pub host: HostFacts,
    /// The VMM.
    pub vmm: VmmRelease,
    /// The numbers of iterations.
    pub options: Options,
    /// Whether the measurement was interrupted. The case that was under way, and those after it, have the state
    /// `interrupted`.
    pub interrupted: bool,
    /// Each case.
    pub cases: Vec<CaseReport>,
}

/// The release of the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VmmRelease {
    /// Its release, such as `v53.0`, from the answer to `vmm.ping` or from the recordings.
    pub release: Option<String>,
    /// Why the release isn't known; null if it is.
    pub unknown_because: Option<String>,
}

/// The numbers of iterations, and the length of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The measured iterations of each case, summed over all workers.
    pub iterations: u64,
    /// The unmeasured iterations that each worker made first.
    pub warm_up: u64,
    /// How many bytes of output the step `stream` reads.
    pub stream_bytes: u64,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// The golden snapshot's directory; null on recordings.
    pub golden: Option<String>,
    /// The guest's memory, in MiB; null on recordings, or if the golden snapshot can't be opened.
    pub memory_mib: Option<u64>,
    /// The guest's vCPUs; null likewise.
    pub vcpus: Option<u32>,
    /// How a sandbox is reset: `in_place` or `fresh`.
    pub strategy: String,
    /// The number of spare VMMs; null with `in_place`.
    pub spares: Option<u32>,
    /// How many sandboxes were used at the same time.
    pub at_once: u32,
    /// How the case ended.
    #[serde(flatten)]
    pub state: CaseState,
    /// How many iterations were measured.
    pub iterations: u64,
    /// How long the case took, including boots and warm-up, in microseconds.
    pub micros: u64,
    /// How the guests got their memory: `mapped` or `copied`; null if no reset was made.
    pub memory: Option<String>,
    /// The number of measured resets for each kind of VMM that served afterwards: `spare`, `new`, `reused` or
    /// `attached`. If spares aren't made fast enough, some resets in a case with spares use a new VMM.
    pub vmms: BTreeMap<String, u64>,
    /// The confinement layers of the VMM that served after the first measured reset. Empty on recordings, which have no
    /// VMM process.
    pub layers: Vec<LayerFacts>,
    /// Each step, in the order of an iteration.
    pub steps: Vec<StepReport>,
    /// The steps of a reset, in their order. Their means are parts of the mean of `reset`.
    pub reset_steps: Vec<StepReport>,
    /// The steps that don't exist in this case, with the reason.
    pub not_measured: Vec<NotMeasured>,
}

/// How a case ended. In JSON this is the field `state`, with `failure` beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum CaseState {
    /// Every iteration was measured.
    Complete,
    /// An iteration failed, which ended the case. The figures cover the iterations before it.
    Failed {
        /// The failure.
        failure: Failure,
    },
    /// The case could not begin. It has no figures.
    Skipped {
        /// The reason.
        failure: Failure,
    },
    /// The measurement was stopped. The figures cover the iterations before that.
    Interrupted,
}

/// Why a case was not completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed, such as `tool`; `open` if it failed before the first step.
    pub step: String,
    /// A stable code: one of [`sandbox::Error`](crate::sandbox::Error#codes), or one that begins with `LATENCY_`.
    pub code: String,
    /// The error with its chain of causes. It may quote a guest or a VMM.
    pub error: String,
}

/// A layer of confinement around a VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerFacts {
    /// Its name, such as `landlock`.
    pub layer: String,
    /// `in_force`, `missing` or `left_out`.
    pub state: String,
    /// The extent to which it is in force, or why it is missing.
    #[serde(default)]
    pub detail: String,
}

/// The times of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepReport {
    /// The step's name. See the [table](super#the-steps).
    pub name: String,
    /// Its times.
    #[serde(flatten)]
    pub times: Distribution,
}

/// A step that doesn't exist in a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
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

    /// Whether every case was completed.
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
