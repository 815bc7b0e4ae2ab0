//! [`LatencyReport`]: the result of a measurement, and its JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Distribution;
use crate::host_facts::{HostFacts, RunsOn};
use crate::report_json::{self, ReportError};

/// The version of the report's schema: 1. [`LatencyReport::from_json`] refuses a report of another version.
pub const SCHEMA_VERSION: u32 = 1;

/// The result of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LatencyReport {
    /// The version of the schema: [`SCHEMA_VERSION`], which is 1.
    pub schema_version: u32,
    /// The version of this crate that measured, such as `0.1.0`.
    pub crate_version: String,
    /// When the measurement began, by the host's clock.
    pub began_at: Timestamp,
    /// When the last case ended, by the host's clock.
    pub ended_at: Timestamp,
    /// The program and its arguments, as in [`Plan::command_line`](super::Plan::command_line); empty if the plan has
    /// none.
    pub command_line: Vec<String>,
    /// The platform: hardware, an emulator or recordings.
    pub runs_on: RunsOn,
    /// The host's kernel, processor, memory and load.
    pub host: HostFacts,
    /// The release of the VMM that all cases used.
    pub vmm: VmmRelease,
    /// The numbers of iterations of each case, as the plan asked for them.
    pub options: Options,
    /// Whether the measurement was interrupted. The case that was under way, and those after it, have the state
    /// [`Interrupted`](CaseState::Interrupted).
    pub interrupted: bool,
    /// Each [`Case`](super::Case) of the plan, in the order of the plan.
    pub cases: Vec<CaseReport>,
}

/// The release of the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VmmRelease {
    /// The VMM's release, such as `v53.0`, from the answer to `vmm.ping` or from the recordings; `None` (null) if it
    /// isn't known.
    pub release: Option<String>,
    /// Why the release isn't known, in words; `None` (null) if it is.
    pub unknown_because: Option<String>,
}

/// The numbers of iterations, and the length of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// How many iterations of each case were to be measured, summed over all workers.
    pub iterations: u64,
    /// How many unmeasured iterations each worker was to make first.
    pub warm_up: u64,
    /// How many bytes of output the step `stream` reads: 1,048,576.
    pub stream_bytes: u64,
}

/// The result of one [`Case`](super::Case) of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CaseReport {
    /// The case's name, as [`Case`](super::Case) displays it, such as `fresh, 1 spare, 4 at once`.
    pub name: String,
    /// The path of the [golden snapshot](crate::golden) that the case resets to; null on recordings.
    pub golden: Option<String>,
    /// The guest's memory, in MiB; null on recordings, or if the golden snapshot can't be opened.
    pub memory_mib: Option<u64>,
    /// The number of the guest's vCPUs; null likewise.
    pub vcpus: Option<u32>,
    /// How a sandbox is reset: `in_place` or `fresh` ([`Strategy`](crate::sandbox::Strategy)).
    pub strategy: String,
    /// The number of spare VMMs that the case asks for; null with `in_place`.
    pub spares: Option<u32>,
    /// How many sandboxes the case uses at the same time, each by a worker of its own.
    pub at_once: u32,
    /// How the case ended.
    #[serde(flatten)]
    pub state: CaseState,
    /// How many iterations were measured, summed over all workers.
    pub iterations: u64,
    /// How long the case took, including boots and warm-up, in microseconds; 0 if it wasn't begun.
    pub micros: u64,
    /// How the guests got their memory at the first measured reset that says it: `mapped` or `copied`
    /// ([`MemoryMode`](crate::golden::MemoryMode)); null if none does.
    pub memory: Option<String>,
    /// The number of measured resets for each kind of VMM that served afterwards: `spare`, `new`, `reused` or
    /// `attached`. If spares aren't made fast enough, some resets in a case with spares use a new VMM.
    pub vmms: BTreeMap<String, u64>,
    /// The [layers of confinement](LayerFacts) of the VMM that served after that reset. Empty on recordings, which have
    /// no VMM process.
    pub layers: Vec<LayerFacts>,
    /// The times of each [step](super#the-steps) that was measured, in the order of an iteration.
    pub steps: Vec<StepReport>,
    /// The times of the parts of a reset, as [`ResetReport::steps`](crate::sandbox::ResetReport::steps) names them, in
    /// the order in which they came first. Their means are parts of the mean of `reset`.
    pub reset_steps: Vec<StepReport>,
    /// The [steps](super#the-steps) that don't exist in this case, with the reason: `acquire` and `release` on
    /// recordings.
    pub not_measured: Vec<NotMeasured>,
}

/// How a case ended. In JSON this is the field `state` of the case, with the variant's name in snake case, and the
/// field `failure` beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum CaseState {
    /// Every iteration was measured.
    Complete,
    /// A boot or an iteration failed, which ended the case. The figures cover the iterations before it.
    Failed {
        /// The step and the error of the first failure.
        failure: Failure,
    },
    /// The case could not begin. It has no figures.
    Skipped {
        /// Why it could not begin. Its step is `open`.
        failure: Failure,
    },
    /// The measurement was stopped before the case was complete or begun. The figures cover the iterations before that.
    Interrupted,
}

/// Why a case was not completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The name of the [step](super#the-steps) that failed, such as `tool`; `open` if the case failed before the first
    /// step.
    pub step: String,
    /// A stable code: that of [`latency::Error::code`](super::Error::code), or `LATENCY_STRATEGY` for a case that
    /// recordings can't serve.
    pub code: String,
    /// The error in words, with its chain of causes. It may quote a guest or a VMM.
    pub error: String,
}

/// A layer of confinement of a VMM: one of the restrictions of the VMM's process ([`Layer`](crate::vmm::Layer)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerFacts {
    /// The layer's name, such as `landlock` ([`Layer::name`](crate::vmm::Layer::name)).
    pub layer: String,
    /// The layer's state: `in_force`, `missing` or `left_out` ([`LayerState`](crate::vmm::LayerState)).
    pub state: String,
    /// The extent to which the layer is in force, or why it is missing, in words; empty for one that is left out.
    #[serde(default)]
    pub detail: String,
}

/// The times of a step, or of a part of a reset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepReport {
    /// The name of the step (see the [table](super#the-steps)), or of the part of a reset.
    pub name: String,
    /// The times of the step. In JSON the fields of the [`Distribution`] stand beside `name`.
    #[serde(flatten)]
    pub times: Distribution,
}

/// A step that doesn't exist in a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NotMeasured {
    /// The name of the [step](super#the-steps).
    pub step: String,
    /// Why the step doesn't exist in this case, in words.
    pub reason: String,
}

impl LatencyReport {
    /// Reads a report from JSON. Unknown fields are ignored.
    ///
    /// # Errors
    ///
    /// - [`ReportError::Version`] if `schema_version` is another number than [`SCHEMA_VERSION`]
    /// - [`ReportError::Malformed`] if `json` isn't JSON, lacks a field that can't be null, or has a value of another
    ///   type
    pub fn from_json(json: &[u8]) -> Result<LatencyReport, ReportError> {
        report_json::parse(json, "report of latencies", SCHEMA_VERSION)
    }

    /// Whether the measurement was not interrupted and every case has the state [`Complete`](CaseState::Complete).
    pub fn is_complete(&self) -> bool {
        let mut cases = self.cases.iter();
        !self.interrupted && cases.all(|case| case.state == CaseState::Complete)
    }
}

impl CaseReport {
    /// The times of the [step](super#the-steps) `name`; `None` if it has no sample. The parts of a reset are not
    /// searched.
    pub fn step(&self, name: &str) -> Option<&Distribution> {
        let mut steps = self.steps.iter();
        let step = steps.find(|step| step.name == name)?;
        (step.times.count > 0).then_some(&step.times)
    }
}
