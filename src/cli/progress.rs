//! Progress bars for long commands, drawn only on a terminal.

use std::convert::Infallible;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

/// The time between two updates.
const REFRESH: Duration = Duration::from_millis(100);

/// Updates and draws a bar until this future is dropped, and then clears the bar. Draws nothing if standard error isn't
/// a terminal.
pub(super) async fn draw(
    bar: impl FnOnce() -> ProgressBar,
    template: &str,
    mut update: impl FnMut(&ProgressBar),
) -> Infallible {
    if !io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let bar = Cleared(bar());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.0.set_style(style);
    }
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        update(&bar.0);
        bar.0.tick();
    }
}

/// Runs `work` to its end, and `drawing` (see [`draw`]) at the same time.
pub(super) async fn shown<T>(
    work: impl Future<Output = T>,
    drawing: impl Future<Output = Infallible>,
) -> T {
    tokio::select! {
        biased;
        done = work => done,
        never = drawing => match never {},
    }
}

/// A bar that is cleared from the terminal when it is dropped.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
