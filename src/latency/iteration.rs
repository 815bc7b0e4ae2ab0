//! [`Iteration`] measures one iteration on a sandbox; [`Tally`] collects the times of many.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;

use super::samples::Samples;
use super::{Error, LayerFacts, StepReport};
use crate::duration::micros;
use crate::golden::MemoryMode;
use crate::sandbox::{OutputStream, Reset, ResetReport, Sandbox, ToolInvocation};
use crate::vmm::{LayerReport, LayerState};

/// How many bytes of a tool's output the step `stream` reads.
pub(super) const STREAM_BYTES: u64 = 1 << 20;

/// The message for the `echo` tool of the step `tool`.
const MESSAGE: &str = "hello";

/// The steps of an iteration, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StepName {
    Boot,
    Acquire,
    Tool,
    FirstByte,
    Stream,
    Reset,
    Release,
}

impl StepName {
    pub(super) fn text(self) -> &'static str {
        match self {
            StepName::Boot => "boot",
            StepName::Acquire => "acquire",
            StepName::Tool => "tool",
            StepName::FirstByte => "first_byte",
            StepName::Stream => "stream",
            StepName::Reset => "reset",
            StepName::Release => "release",
        }
    }
}

/// An error with the step in which it happened.
#[derive(Debug)]
pub(super) struct FailedStep {
    pub(super) step: StepName,
    pub(super) error: Box<Error>,
}

/// Adds to an error the step in which it happened.
pub(super) trait InStep<T> {
    fn in_step(self, step: StepName) -> Result<T, FailedStep>;
}

impl<T, E: Into<Error>> InStep<T> for Result<T, E> {
    fn in_step(self, step: StepName) -> Result<T, FailedStep> {
        self.map_err(|error| FailedStep {
            step,
            error: Box::new(error.into()),
        })
    }
}

/// The times of one iteration.
#[derive(Debug, Default)]
pub(super) struct Iteration {
    steps: Vec<(StepName, u64)>,
    reset: Option<ResetReport>,
}

impl Iteration {
    pub(super) fn add(&mut self, step: StepName, since: Instant) {
        self.steps.push((step, micros(since.elapsed())));
    }

    /// Adds a reset, with the time from its report.
    pub(super) fn add_reset(&mut self, reset: Reset) -> Result<(), Error> {
        let Reset::Verified(outcome) = reset else {
            return Err(Error::Unverified);
        };
        self.steps.push((StepName::Reset, outcome.report.micros));
        self.reset = Some(outcome.report);
        Ok(())
    }

    /// Runs both tools in a clean sandbox.
    pub(super) async fn use_sandbox(&mut self, sandbox: &dyn Sandbox) -> Result<(), FailedStep> {
        let began = Instant::now();
        let echo = ToolInvocation::new("echo", json!({ "message": MESSAGE }));
        let ran = sandbox.execute_tool(echo).await.in_step(StepName::Tool)?;
        self.add(StepName::Tool, began);
        if !ran.is_success() {
            return Err(Error::Tool(ran.outcome)).in_step(StepName::Tool);
        }
        if ran.stdout.bytes() != format!("{MESSAGE}\n").as_bytes() {
            return Err(Error::Echo).in_step(StepName::Tool);
        }
        self.stream(sandbox).await
    }

    /// Reads 1 MiB of a tool that writes without end, and cancels it.
    async fn stream(&mut self, sandbox: &dyn Sandbox) -> Result<(), FailedStep> {
        let began = Instant::now();
        let endless = ToolInvocation::new("cat", json!({ "path": "/dev/zero" }));
        let started = sandbox.start(endless).await;
        let mut running = started.in_step(StepName::FirstByte)?;
        let mut came = 0;
        while came < STREAM_BYTES {
            let step = match came {
                0 => StepName::FirstByte,
                _ => StepName::Stream,
            };
            let Some(chunk) = running.next().await else {
                let report = running.wait().await.in_step(step)?;
                let short = Error::ShortStream {
                    expected: STREAM_BYTES,
                    came,
                    outcome: report.outcome,
                };
                return Err(short).in_step(step);
            };
            let chunk = chunk.in_step(step)?;
            if chunk.stream != OutputStream::Stdout {
                continue;
            }
            if came == 0 {
                self.add(StepName::FirstByte, began);
            }
            came += chunk.bytes.len() as u64;
        }
        self.add(StepName::Stream, began);
        running.cancel();
        running.wait().await.in_step(StepName::Stream)?;
        Ok(())
    }
}

/// The times of many iterations.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) iterations: u64,
    pub(super) memory: Option<MemoryMode>,
    pub(super) layers: Vec<LayerFacts>,
    pub(super) vmms: BTreeMap<String, u64>,
    steps: BTreeMap<StepName, Samples>,
    /// In the order in which the resets first reported them.
    reset_steps: Vec<(&'static str, Samples)>,
}

impl Tally {
    pub(super) fn add(&mut self, iteration: Iteration) {
        self.iterations += 1;
        for (step, micros) in iteration.steps {
            self.add_step(step, micros);
        }
        if let Some(report) = iteration.reset {
            self.add_report(&report);
        }
    }

    pub(super) fn add_step(&mut self, step: StepName, micros: u64) {
        let samples = self.steps.entry(step).or_insert_with(Samples::new);
        samples.add(micros);
    }

    fn add_report(&mut self, report: &ResetReport) {
        if let Some(vmm) = report.vmm {
            *self.vmms.entry(vmm.to_string()).or_default() += 1;
        }
        if self.memory.is_none() {
            self.memory = report.memory.as_ref().map(|memory| memory.mode);
            self.layers = report.layers.iter().map(layer).collect();
        }
        // A step that a reset reports twice counts once, with the sum of its times.
        let mut steps: Vec<(&'static str, u64)> = Vec::new();
        for step in &report.steps {
            match steps.iter_mut().find(|(name, _)| *name == step.name) {
                Some((_, micros)) => *micros += step.micros,
                None => steps.push((step.name, step.micros)),
            }
        }
        for (name, micros) in steps {
            self.reset_step(name).add(micros);
        }
    }

    fn reset_step(&mut self, name: &'static str) -> &mut Samples {
        let known = self
            .reset_steps
            .iter()
            .position(|(known, _)| *known == name);
        let at = known.unwrap_or_else(|| {
            self.reset_steps.push((name, Samples::new()));
            self.reset_steps.len() - 1
        });
        &mut self.reset_steps[at].1
    }

    /// Adds the times of another worker.
    pub(super) fn merge(&mut self, other: Tally) {
        self.iterations += other.iterations;
        if self.memory.is_none() {
            (self.memory, self.layers) = (other.memory, other.layers);
        }
        for (vmm, count) in other.vmms {
            *self.vmms.entry(vmm).or_default() += count;
        }
        for (step, samples) in other.steps {
            self.steps
                .entry(step)
                .or_insert_with(Samples::new)
                .merge(samples);
        }
        for (name, samples) in other.reset_steps {
            self.reset_step(name).merge(samples);
        }
    }

    /// The times of each step, and of each step of a reset.
    pub(super) fn steps(self) -> (Vec<StepReport>, Vec<StepReport>) {
        let report = |name: &str, samples: Samples| StepReport {
            name: name.to_owned(),
            times: samples.distribution(),
        };
        let steps = self.steps.into_iter();
        let reset_steps = self.reset_steps.into_iter();
        (
            steps
                .map(|(step, samples)| report(step.text(), samples))
                .collect(),
            reset_steps
                .map(|(name, samples)| report(name, samples))
                .collect(),
        )
    }
}

fn layer(report: &LayerReport) -> LayerFacts {
    let (state, detail) = match &report.state {
        LayerState::InForce { detail } => ("in_force", detail.as_str()),
        LayerState::Missing { reason } => ("missing", reason.as_str()),
        LayerState::LeftOut => ("left_out", ""),
    };
    LayerFacts {
        layer: report.layer.name().to_owned(),
        state: state.to_owned(),
        detail: detail.to_owned(),
    }
}
