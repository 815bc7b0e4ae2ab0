//! The metrics of sandboxes and pools, through the facade of the `metrics` crate. A program that wants them installs a
//! recorder of its choice; without one, nothing is recorded.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `chv_sandbox_resets_total` | counter | `strategy`, `vmm`, `verdict` | resets: `verified`, `unverified` (scaffold mode) or `failed` |
//! | `chv_sandbox_reset_seconds` | histogram | `strategy`, `vmm` | how long a reset took |
//! | `chv_sandbox_reset_step_seconds` | histogram | `step` | how long each of its steps took |
//! | `chv_sandbox_tools_total` | counter | `outcome` | tools that ended, by outcome or by the code of the error |
//! | `chv_sandbox_tool_seconds` | histogram | - | how long a tool took |
//! | `chv_sandbox_transfers_total` | counter | `direction`, `result` | ended transfers: `push` or `pull`, `ok` or the error's code |
//! | `chv_sandbox_transfer_bytes_total` | counter | `direction` | bytes of files that were transferred |
//! | `chv_sandbox_spares_total` | counter | `event` | spares that became `ready`, `failed`, `ended` or were `refused` |
//! | `chv_sandbox_pool_sandboxes` | gauge | `state` | sandboxes of pools: `idle`, `acquired`, `in_progress` |
//! | `chv_sandbox_pool_waiting` | gauge | - | callers that wait for a sandbox |
//! | `chv_sandbox_pool_memory_bytes` | gauge | - | the most memory that the pool's golden snapshots and VMMs may take |
//!
//! The gauges have no label for the pool and show the pool that changed last. A program with several pools reads the
//! [`status`](super::Pool::status) of each.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::{Event, PoolStatus, ResetOutcome, TransferEnded};

/// Updates the metrics that an event concerns.
pub(super) fn count(event: &Event) {
    match event {
        Event::Reset(outcome) => count_reset(outcome),
        Event::ToolEnded { result, took, .. } => {
            let outcome = match result {
                Ok(outcome) => outcome.name(),
                Err(error) => error.code(),
            };
            counter!("chv_sandbox_tools_total", "outcome" => outcome).increment(1);
            histogram!("chv_sandbox_tool_seconds").record(took.as_secs_f64());
        }
        Event::FilesPushed(moved) => count_files("push", moved),
        Event::FilesPulled(moved) => count_files("pull", moved),
        Event::SpareReady => count_spare("ready"),
        Event::SpareFailed(_) => count_spare("failed"),
        Event::SpareEnded(_) => count_spare("ended"),
        Event::SpareRefused(_) => count_spare("refused"),
        _ => {}
    }
}

fn count_files(direction: &'static str, moved: &TransferEnded) {
    let result = match &moved.result {
        Ok(_) => "ok",
        Err(error) => error.code(),
    };
    let labels = [("direction", direction), ("result", result)];
    counter!("chv_sandbox_transfers_total", &labels).increment(1);
    if let Ok(totals) = &moved.result {
        let bytes = counter!("chv_sandbox_transfer_bytes_total", "direction" => direction);
        bytes.increment(totals.bytes);
    }
}

fn count_reset(outcome: &ResetOutcome) {
    let (verdict, report) = (outcome.verdict().name(), &outcome.report);
    let strategy = report.strategy.to_string();
    let vmm = report
        .vmm
        .map_or_else(|| "none".to_owned(), |vmm| vmm.to_string());
    let labels = [("strategy", strategy.clone()), ("vmm", vmm.clone())];
    counter!(
        "chv_sandbox_resets_total",
        "strategy" => strategy, "vmm" => vmm, "verdict" => verdict
    )
    .increment(1);
    let seconds = |micros| Duration::from_micros(micros).as_secs_f64();
    histogram!("chv_sandbox_reset_seconds", &labels).record(seconds(report.micros));
    for step in &report.steps {
        histogram!("chv_sandbox_reset_step_seconds", "step" => step.name)
            .record(seconds(step.micros));
    }
}

fn count_spare(event: &'static str) {
    counter!("chv_sandbox_spares_total", "event" => event).increment(1);
}

/// Sets the gauges to the status of a pool.
pub(super) fn show_pool(status: &PoolStatus) {
    for (state, count) in [
        ("idle", status.idle),
        ("acquired", status.acquired),
        ("in_progress", status.in_progress),
    ] {
        gauge!("chv_sandbox_pool_sandboxes", "state" => state).set(count as f64);
    }
    gauge!("chv_sandbox_pool_waiting").set(status.waiting as f64);
    gauge!("chv_sandbox_pool_memory_bytes").set(status.memory_bytes as f64);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;
    use crate::machine::Steps;
    use crate::sandbox::{Error, ResetReport, StrategyUsed, ToolOutcome, VmmApiState, VmmUsed};

    #[test]
    fn resets_tools_and_spares_are_counted() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            let mut steps = Steps::start();
            steps.end("restore");
            let report =
                ResetReport::unverified(StrategyUsed::ColdBoot, Some(VmmUsed::Reused), &steps);
            let outcome = ResetOutcome::unverified(VmmApiState::Running, report);
            count(&Event::Reset(Arc::new(outcome)));
            for result in [Ok(ToolOutcome::Exited { code: 0 }), Err(Error::ShutDown)] {
                count(&Event::ToolEnded {
                    command_id: "1".to_owned(),
                    result,
                    took: Duration::from_millis(1),
                    evidence: None,
                });
            }
            count(&Event::SpareReady);
            let status = PoolStatus {
                waiting: 3,
                memory_bytes: 1 << 20,
                ..PoolStatus::default()
            };
            show_pool(&status);
        });
        let found: Vec<String> = snapshotter
            .snapshot()
            .into_vec()
            .into_iter()
            .map(|(key, _, _, value)| {
                let key = key.key();
                let labels: Vec<_> = key
                    .labels()
                    .map(|it| format!("{}={}", it.key(), it.value()))
                    .collect();
                let value = match value {
                    DebugValue::Counter(count) => count.to_string(),
                    DebugValue::Gauge(value) => value.to_string(),
                    DebugValue::Histogram(samples) => format!("{} samples", samples.len()),
                };
                format!("{} {} {value}", key.name(), labels.join(","))
            })
            .collect();
        for expected in [
            "chv_sandbox_resets_total strategy=cold_boot,vmm=reused,verdict=unverified 1",
            "chv_sandbox_reset_seconds strategy=cold_boot,vmm=reused 1 samples",
            "chv_sandbox_reset_step_seconds step=restore 1 samples",
            "chv_sandbox_tools_total outcome=exited 1",
            "chv_sandbox_tools_total outcome=SANDBOX_SHUT_DOWN 1",
            "chv_sandbox_tool_seconds  2 samples",
            "chv_sandbox_spares_total event=ready 1",
            "chv_sandbox_pool_waiting  3",
            "chv_sandbox_pool_memory_bytes  1048576",
        ] {
            assert!(
                found.iter().any(|line| line == expected),
                "{expected:?} in {found:#?}"
            );
        }
    }
}
