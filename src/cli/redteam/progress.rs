//! How far a battery is, on the terminal.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::time::Duration;

use chv_sandbox::redteam::{Plan, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

/// Shows the probe that is tried, if standard error is a terminal. Goes on until it is dropped, and clears what it drew.
pub(super) async fn show(plan: &Plan, progress: &Progress) -> Infallible {
    const REFRESH: Duration = Duration::from_millis(100);
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let probes = plan.probes();
    let bar = Cleared(ProgressBar::new(probes.len() as u64));
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len} probes") {
        bar.0.set_style(style);
    }
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if let Some(probe) = probes.get(progress.probe()) {
            let dispatches = progress.dispatches();
            bar.0
                .set_message(format!("{}, {dispatches} dispatches", probe.name));
            bar.0.set_position(progress.probe() as u64);
        }
    }
}

/// A bar that is gone from the terminal when it is dropped.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
