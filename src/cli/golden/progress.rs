//! How far a mint has come, on a terminal.

use std::io::{self, IsTerminal};
use std::time::Duration;

use chv_sandbox::golden::{MintProgress, MintStep};
use chv_sandbox::sanitize;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tokio::time::interval;

/// How often it is drawn.
const REFRESH: Duration = Duration::from_millis(100);

/// Shows the step that is under way while `minting` goes on, if standard error is a terminal.
pub(super) async fn shown<T>(progress: &MintProgress, minting: impl Future<Output = T>) -> T {
    if !io::stderr().is_terminal() {
        return minting.await;
    }
    let bar = Cleared(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.0.set_style(style);
    }
    let mut ticks = interval(REFRESH);
    let show = async {
        loop {
            ticks.tick().await;
            bar.0.set_message(message(progress));
            bar.0.tick();
        }
    };
    tokio::select! {
        done = minting => done,
        never = show => never,
    }
}

fn message(progress: &MintProgress) -> String {
    let Some(step) = progress.step() else {
        return "start the VMM".to_owned();
    };
    let said = sanitize::line(&step.to_string(), 100);
    match (step, progress.written()) {
        (MintStep::Snapshot, (written, all)) => format!(
            "{said}: {} of {} of memory",
            HumanBytes(written),
            HumanBytes(all)
        ),
        _ => said,
    }
}

/// A bar that is gone from the terminal when it is dropped.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
