//! How far a measurement is, on the terminal.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::time::Duration;

use chv_sandbox::latency::{Plan, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

/// Shows a bar for the case that is measured, if standard error is a terminal. Goes on until it is dropped, and clears what it
/// drew.
pub(super) async fn show(plan: &Plan, progress: &Progress) -> Infallible {
    const REFRESH: Duration = Duration::from_millis(100);
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let bar = Cleared(ProgressBar::new(0));
    let template = "{msg} {wide_bar} {pos} of {len} iterations, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.0.set_style(style);
    }
    let mut shown = None;
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let index = progress.case();
        if let Some(case) = plan.cases.get(index)
            && shown != Some(index)
        {
            let warm_up = plan.warm_up.saturating_mul(u64::from(case.at_once));
            bar.0.reset();
            bar.0.set_length(plan.iterations.saturating_add(warm_up));
            bar.0
                .set_message(format!("{}/{} {case}", index + 1, plan.cases.len()));
            shown = Some(index);
        }
        bar.0.set_position(progress.iterations());
    }
}

/// A bar that is gone from the terminal when it is dropped.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
