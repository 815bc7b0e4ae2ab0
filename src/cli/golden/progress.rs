//! Shows the progress of a mint on a terminal.

use chv_sandbox::golden::{MintProgress, MintStep};
use chv_sandbox::sanitize;
use indicatif::{HumanBytes, ProgressBar};

use crate::cli::progress;

/// Runs `minting`, and shows its current step.
pub(super) async fn shown<T>(progress: &MintProgress, minting: impl Future<Output = T>) -> T {
    let drawing = progress::draw(
        ProgressBar::new_spinner,
        "{spinner} {elapsed} {msg}",
        |bar| {
            bar.set_message(message(progress));
        },
    );
    progress::shown(minting, drawing).await
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
