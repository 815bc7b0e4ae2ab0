//! Shows the progress of a measurement on the terminal.

use std::convert::Infallible;

use chv_sandbox::latency::{Plan, Progress};
use indicatif::ProgressBar;

use crate::cli::progress;

/// Shows a bar for the current case.
pub(super) async fn show(plan: &Plan, progress: &Progress) -> Infallible {
    let template = "{msg} {wide_bar} {pos} of {len} iterations, {eta} left";
    let mut shown = None;
    let update = |bar: &ProgressBar| {
        let index = progress.case();
        if let Some(case) = plan.cases.get(index)
            && shown != Some(index)
        {
            let warm_up = plan.warm_up.saturating_mul(u64::from(case.at_once));
            bar.reset();
            bar.set_length(plan.iterations.saturating_add(warm_up));
            bar.set_message(format!("{}/{} {case}", index + 1, plan.cases.len()));
            shown = Some(index);
        }
        bar.set_position(progress.iterations());
    };
    progress::draw(|| ProgressBar::new(0), template, update).await
}
