//! [`attack`]: tries the probes of a plan, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::watch;

use super::attacker::Attacker;
use super::report::{ProbeReport, RedteamReport, SCHEMA_VERSION};
use super::{Plan, Verdict};
use crate::duration::micros;
use crate::host_facts::{self, HostFacts};
use crate::interruption;
use crate::sandbox::Backend;

/// The progress of an attack, which another task can read.
#[derive(Debug, Default)]
pub struct Progress {
    probe: AtomicU64,
    dispatches: AtomicU64,
}

impl Progress {
    /// The index of the current probe in [`Plan::probes()`], from 0.
    pub fn probe(&self) -> usize {
        usize::try_from(self.probe.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// How many tools were sent to the sandboxes, summed over all probes.
    pub fn dispatches(&self) -> u64 {
        self.dispatches.load(Ordering::Relaxed)
    }

    pub(super) fn count_dispatch(&self) {
        self.dispatches.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tries each probe of `plan`, one after the other, and counts them in `progress`. The sandboxes are shut down when
/// this returns. Must be called within a tokio runtime.
///
/// Once `stop` is true, the current probe is dropped, and it and all later probes are reported as skipped. If the
/// sender of `stop` is dropped, the attack runs to its end.
///
/// Never fails: a probe that could not be tried is skipped in the report, with the reason.
pub async fn attack(
    plan: &Arc<Plan>,
    progress: &Arc<Progress>,
    mut stop: watch::Receiver<bool>,
) -> RedteamReport {
    let (began_at, began) = (Timestamp::now(), Instant::now());
    let mut host = HostFacts::of_this_host();
    let mut attacker = Attacker::new(plan, progress);
    let (mut probes, mut interrupted) = (Vec::new(), false);
    for (index, probe) in (0..).zip(&plan.probes) {
        progress.probe.store(index, Ordering::Relaxed);
        let (since, before) = (Instant::now(), attacker.dispatches);
        let verdict = tokio::select! {
            biased;
            () = interruption::requested(&mut stop) => None,
            verdict = (probe.attempt)(&mut attacker) => Some(verdict),
        };
        interrupted |= verdict.is_none();
        probes.push(ProbeReport {
            name: probe.name.to_owned(),
            family: probe.family,
            tries: probe.tries.to_owned(),
            breach: probe.breach.to_owned(),
            verdict: verdict.unwrap_or_else(|| Verdict::skipped("it was interrupted")),
            dispatches: attacker.dispatches - before,
            micros: micros(since.elapsed()),
        });
    }
    attacker.close().await;
    host.load_at_end = host_facts::load();
    RedteamReport {
        schema_version: SCHEMA_VERSION,
        crate_version: env!("CARGO_PKG_VERSION").to_owned(),
        began_at,
        ended_at: Timestamp::now(),
        command_line: plan.command_line.clone(),
        runs_on: host_facts::runs_on(),
        host,
        sandbox: attacker.backend.map(|backend| name(backend).to_owned()),
        golden: plan.subject.golden.clone(),
        release: plan.subject.release.clone(),
        strategy: plan.subject.strategy.clone(),
        marker_dispatches: plan.dispatches,
        sandboxes: attacker.sandboxes,
        dispatches: attacker.dispatches,
        resets: attacker.resets,
        failures: attacker.failures,
        interrupted,
        micros: micros(began.elapsed()),
        probes,
    }
}

fn name(backend: Backend) -> &'static str {
    match backend {
        Backend::Chv => "chv",
        Backend::Vf => "vf",
        Backend::Stub => "stub",
    }
}
