//! [`measure`]: measures the cases of a plan, one after the other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::iteration::{FailedStep, InStep, STREAM_BYTES, StepName, Tally};
use super::report::{
    CaseReport, CaseState, Failure, LatencyReport, NotMeasured, Options, SCHEMA_VERSION, VmmRelease,
};
use super::worker::{Booted, Fleet, NOT_ON_RECORDINGS, Worker};
use super::{Case, Plan, Subject};
use crate::causes::Causes;
use crate::duration::micros;
use crate::golden::{Golden, MemoryMode};
use crate::host_facts::{self, HostFacts, Platform, RunsOn};
use crate::interruption;
use crate::replay::recorded_release;
use crate::sandbox::Strategy;
use crate::vmm::Vmm;

/// The progress of a measurement, which another task can read.
#[derive(Debug, Default)]
pub struct Progress {
    case: AtomicU64,
    iterations: AtomicU64,
}

impl Progress {
    /// The index of the current case, from 0.
    pub fn case(&self) -> usize {
        usize::try_from(self.case.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// How many iterations of the current case are done, including those of the warm-up.
    pub fn iterations(&self) -> u64 {
        self.iterations.load(Ordering::Relaxed)
    }
}

/// What can end a case early.
#[derive(Clone)]
struct Stop {
    /// The caller's signal: true once the measurement must stop.
    caller: watch::Receiver<bool>,
    /// Set when a worker of the case has failed.
    failed: Arc<AtomicBool>,
}

impl Stop {
    /// Waits until the caller's signal is true. If the caller dropped its sender, waits forever, so the measurement
    /// runs to its end.
    async fn requested(&mut self) {
        interruption::requested(&mut self.caller).await;
    }
}

/// Measures each case of `plan`. Once `stop` is true, the iterations under way are dropped, and the report has the
/// results so far. Every VMM has ended when this returns. Must be called within a tokio runtime.
///
/// Never fails: the failure of a case is in the report.
pub async fn measure(
    plan: &Plan,
    progress: &Arc<Progress>,
    stop: watch::Receiver<bool>,
) -> LatencyReport {
    let began_at = Timestamp::now();
    let mut host = HostFacts::of_this_host();
    let mut stop = Stop {
        caller: stop,
        failed: Arc::default(),
    };
    let (runs_on, vmm) = platform_and_vmm(plan, &mut stop).await;
    let mut report = LatencyReport {
        schema_version: SCHEMA_VERSION,
        crate_version: env!("CARGO_PKG_VERSION").to_owned(),
        began_at,
        ended_at: began_at,
        command_line: plan.command_line.clone(),
        runs_on,
        host: HostFacts::default(),
        vmm,
        options: Options {
            iterations: plan.iterations,
            warm_up: plan.warm_up,
            stream_bytes: STREAM_BYTES,
        },
        interrupted: false,
        cases: Vec::new(),
    };
    for (index, case) in plan.cases.iter().enumerate() {
        progress.case.store(index as u64, Ordering::Relaxed);
        progress.iterations.store(0, Ordering::Relaxed);
        let case = measure_case(plan, case, progress, &stop.caller).await;
        report.interrupted |= case.state == CaseState::Interrupted;
        report.cases.push(case);
    }
    host.load_at_end = host_facts::load();
    (report.host, report.ended_at) = (host, Timestamp::now());
    report
}

/// The platform and the VMM of the measurement.
async fn platform_and_vmm(plan: &Plan, stop: &mut Stop) -> (RunsOn, VmmRelease) {
    match &plan.subject {
        Subject::Recordings { .. } => {
            let runs_on = RunsOn {
                platform: Platform::Replay,
                reason: "the VMM's answers are recorded and come at once, and the guest is simulated in this process: the \
                         times are those of the host's share alone"
                    .to_owned(),
            };
            let vmm = VmmRelease {
                release: Some(recorded_release().to_string()),
                unknown_because: None,
            };
            (runs_on, vmm)
        }
        Subject::Vmms { config, vmm } => {
            let vmm = vmm.as_deref().cloned();
            let vmm = vmm.unwrap_or_else(|| config.vmm_config());
            let asked = async {
                let vmm = Vmm::spawn(&vmm).await;
                let vmm = vmm.map_err(|error| Causes(&error).to_string())?;
                let release = vmm.client().release().await;
                vmm.shutdown().await;
                release.map_err(|error| Causes(&error).to_string())
            };
            let asked = tokio::select! {
                biased;
                () = stop.requested() => Err("it was interrupted".to_owned()),
                asked = asked => asked,
            };
            let vmm = VmmRelease {
                release: asked.as_ref().ok().map(ToString::to_string),
                unknown_because: asked.err(),
            };
            (host_facts::runs_on(), vmm)
        }
    }
}

async fn measure_case(
    plan: &Plan,
    case: &Case,
    progress: &Arc<Progress>,
    stop: &watch::Receiver<bool>,
) -> CaseReport {
    let began = Instant::now();
    let mut report = CaseReport::of(case);
    let on_recordings = matches!(plan.subject, Subject::Recordings { .. });
    if on_recordings {
        report.not_measured = NOT_ON_RECORDINGS
            .map(|step| NotMeasured {
                step: step.text().to_owned(),
                reason: "recordings have no pool".to_owned(),
            })
            .into();
    }
    if let Some(golden) = &case.golden {
        report.describe_guest(golden).await;
    }
    let mut stop = Stop {
        caller: stop.clone(),
        failed: Arc::default(),
    };
    if on_recordings && case.strategy == Strategy::Fresh {
        report.state = skipped(
            "LATENCY_STRATEGY",
            "recordings play one VMM, which is reset in place",
        );
        return report;
    }
    let opened = tokio::select! {
        biased;
        () = stop.requested() => return report,
        opened = Fleet::open(plan, case) => opened,
    };
    match opened {
        Err(error) => report.state = skipped(error.code(), &Causes(&error).to_string()),
        Ok((fleet, workers)) => {
            let (tally, ended) = run(plan, workers, progress, &stop).await;
            let is_complete = matches!(ended, Ended::Complete);
            let closed = fleet.close(is_complete).await;
            report.take(tally);
            report.state = match (ended, closed.in_step(StepName::Release)) {
                (Ended::Failed(failed), _) | (Ended::Complete, Err(failed)) => {
                    failed_state(&failed)
                }
                (Ended::Complete, Ok(())) => CaseState::Complete,
                (Ended::Interrupted, _) => CaseState::Interrupted,
            };
        }
    }
    report.micros = micros(began.elapsed());
    report
}

/// How the workers of a case ended.
enum Ended {
    Complete,
    Failed(FailedStep),
    Interrupted,
}

impl Ended {
    /// A failure takes precedence over the interruption that it causes, and the first failure over later ones.
    fn and(self, other: Ended) -> Ended {
        match (self, other) {
            (Ended::Failed(failed), _) | (_, Ended::Failed(failed)) => Ended::Failed(failed),
            (Ended::Interrupted, _) | (_, Ended::Interrupted) => Ended::Interrupted,
            (Ended::Complete, Ended::Complete) => Ended::Complete,
        }
    }
}

/// Boots all workers, and then runs the iterations of all of them.
async fn run(
    plan: &Plan,
    workers: Vec<Worker>,
    progress: &Arc<Progress>,
    stop: &Stop,
) -> (Tally, Ended) {
    let mut tally = Tally::default();
    let (booted, mut ended) = boot(workers, stop, &mut tally).await;
    if !matches!(ended, Ended::Complete) {
        return (tally, ended);
    }
    let mut loops = JoinSet::new();
    let count = u32::try_from(booted.len()).unwrap_or(u32::MAX);
    for (index, worker, first) in booted {
        let rounds = (plan.warm_up, plan.share(index, count));
        let (progress, mut stop) = (Arc::clone(progress), stop.clone());
        loops.spawn(async move {
            let failed = Arc::clone(&stop.failed);
            // The tally is outside the work, so it is kept when the work is dropped.
            let mut tally = Tally::default();
            let ended = tokio::select! {
                biased;
                () = stop.requested() => Ended::Interrupted,
                ended = iterate(&worker, first, rounds, &progress, &failed, &mut tally) => ended,
            };
            if matches!(ended, Ended::Failed(_)) {
                failed.store(true, Ordering::Relaxed);
            }
            (tally, ended)
        });
    }
    while let Some(done) = loops.join_next().await {
        ended = ended.and(match done.in_step(StepName::Reset) {
            Ok((measured, ended)) => {
                tally.merge(measured);
                ended
            }
            Err(failed) => Ended::Failed(failed),
        });
    }
    (tally, ended)
}

/// Boots all workers at the same time. Returns each with its number, in order.
async fn boot(
    workers: Vec<Worker>,
    stop: &Stop,
    tally: &mut Tally,
) -> (Vec<(u32, Worker, Booted)>, Ended) {
    let mut boots = JoinSet::new();
    for (index, worker) in (0..).zip(workers) {
        let mut stop = stop.clone();
        boots.spawn(async move {
            let booted = tokio::select! {
                biased;
                () = stop.requested() => return None,
                booted = worker.boot() => booted,
            };
            Some(booted.map(|(micros, first)| (micros, (index, worker, first))))
        });
    }
    let (mut booted, mut ended) = (Vec::new(), Ended::Complete);
    while let Some(boot) = boots.join_next().await {
        match boot.in_step(StepName::Boot) {
            Ok(Some(Ok((micros, worker)))) => {
                tally.add_step(StepName::Boot, micros);
                booted.push(worker);
            }
            Ok(None) => ended = ended.and(Ended::Interrupted),
            Ok(Some(Err(failed))) | Err(failed) => ended = ended.and(Ended::Failed(failed)),
        }
    }
    // The order matters: each worker's recording has answers for exactly its own share of the iterations.
    booted.sort_by_key(|(index, ..)| *index);
    (booted, ended)
}

/// Runs the iterations of one worker: first the warm-up, then the measured ones.
async fn iterate(
    worker: &Worker,
    first: Booted,
    (warm_up, measured): (u64, u64),
    progress: &Progress,
    failed: &AtomicBool,
    tally: &mut Tally,
) -> Ended {
    if let Err(failed) = first.let_run().await {
        return Ended::Failed(failed);
    }
    for round in 0..warm_up.saturating_add(measured) {
        // Another worker has failed, which ends the case.
        if failed.load(Ordering::Relaxed) {
            break;
        }
        match worker.iterate().await {
            Ok(iteration) if round >= warm_up => tally.add(iteration),
            Ok(_) => {}
            Err(failed) => return Ended::Failed(failed),
        }
        progress.iterations.fetch_add(1, Ordering::Relaxed);
    }
    Ended::Complete
}

fn skipped(code: &str, error: &str) -> CaseState {
    CaseState::Skipped {
        failure: Failure {
            step: "open".to_owned(),
            code: code.to_owned(),
            error: error.to_owned(),
        },
    }
}

fn failed_state(failed: &FailedStep) -> CaseState {
    CaseState::Failed {
        failure: Failure {
            step: failed.step.text().to_owned(),
            code: failed.error.code().to_owned(),
            error: Causes(&*failed.error).to_string(),
        },
    }
}

impl CaseReport {
    /// The report of a case that was interrupted before it began.
    fn of(case: &Case) -> CaseReport {
        let is_fresh = case.strategy == Strategy::Fresh;
        CaseReport {
            name: case.to_string(),
            golden: case
                .golden
                .as_ref()
                .map(|golden| golden.display().to_string()),
            memory_mib: None,
            vcpus: None,
            strategy: if is_fresh { "fresh" } else { "in_place" }.to_owned(),
            spares: is_fresh.then_some(case.spares),
            at_once: case.at_once,
            state: CaseState::Interrupted,
            iterations: 0,
            micros: 0,
            memory: None,
            vmms: Default::default(),
            layers: Vec::new(),
            steps: Vec::new(),
            reset_steps: Vec::new(),
            not_measured: Vec::new(),
        }
    }

    /// Adds memory and vCPUs of the guest. If the golden snapshot can't be opened, they stay unknown, and the case
    /// fails with the reason.
    async fn describe_guest(&mut self, golden: &Path) {
        let directory = golden.to_owned();
        let opened = tokio::task::spawn_blocking(move || Golden::open(&directory)).await;
        if let Ok(Ok(golden)) = opened {
            let shape = &golden.manifest().shape;
            (self.memory_mib, self.vcpus) = (Some(shape.memory_mib), Some(shape.vcpus));
        }
    }

    fn take(&mut self, mut tally: Tally) {
        self.iterations = tally.iterations;
        self.memory = tally.memory.map(|mode| {
            let name = match mode {
                MemoryMode::Mapped => "mapped",
                MemoryMode::Copied => "copied",
            };
            name.to_owned()
        });
        self.layers = std::mem::take(&mut tally.layers);
        self.vmms = std::mem::take(&mut tally.vmms);
        (self.steps, self.reset_steps) = tally.steps();
    }
}
