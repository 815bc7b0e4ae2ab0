//! Progress bars, on a terminal, of commands that take long.

use std::convert::Infallible;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

/// How often it is drawn.
const REFRESH: Duration = Duration::from_millis(100);

/// Draws a bar after each `update` if standard error is a terminal. Goes on until it is dropped, and clears what it drew.
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

/// Does `work` to its end, and shows how far it is with what [`draw`] draws.
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

/// A bar that is gone from the terminal when it is dropped.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
