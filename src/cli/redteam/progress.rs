//! Shows the progress of the probes on the terminal.

use std::convert::Infallible;

use chv_sandbox::redteam::{Plan, Progress};
use indicatif::ProgressBar;

use crate::cli::progress;

/// Shows the current probe.
pub(super) async fn show(plan: &Plan, progress: &Progress) -> Infallible {
    let probes = plan.probes();
    let bar = || ProgressBar::new(probes.len() as u64);
    let update = |bar: &ProgressBar| {
        if let Some(probe) = probes.get(progress.probe()) {
            let dispatches = progress.dispatches();
            bar.set_message(format!("{}, {dispatches} dispatches", probe.name));
            bar.set_position(progress.probe() as u64);
        }
    };
    progress::draw(bar, "{msg} {wide_bar} {pos} of {len} probes", update).await
}
