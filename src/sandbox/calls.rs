//! The calls that are under way, so that work in the background keeps out of their way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long after the last call began or ended the background work goes on. A tool that runs longer shares the processor
/// with it, since the next reset is to find a spare.
const LULL: Duration = Duration::from_millis(25);

/// Counts the calls of a sandbox.
#[derive(Clone, Debug)]
pub(super) struct Calls(Arc<watch::Sender<Now>>);

#[derive(Clone, Copy, Debug)]
struct Now {
    /// Boots and resets under way.
    changing: usize,
    /// When a call last began or ended.
    last: Instant,
}

/// A call that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Call {
    calls: Calls,
    is_change: bool,
}

impl Default for Calls {
    fn default() -> Self {
        Calls(Arc::new(watch::Sender::new(Now {
            changing: 0,
            last: Instant::now(),
        })))
    }
}

impl Calls {
    /// A boot or a reset begins: no step in the background begins before it has ended.
    pub(super) fn change(&self) -> Call {
        self.0.send_modify(|now| now.changing += 1);
        self.begin(true)
    }

    /// A tool begins.
    pub(super) fn tool(&self) -> Call {
        self.begin(false)
    }

    fn begin(&self, is_change: bool) -> Call {
        self.0.send_modify(|now| now.last = Instant::now());
        Call {
            calls: self.clone(),
            is_change,
        }
    }

    /// Waits until no boot or reset is under way, and no call began or ended for a moment.
    pub(super) async fn lull(&self) {
        let mut calls = self.0.subscribe();
        loop {
            let now = *calls.borrow_and_update();
            if now.changing == 0 {
                let lull = now.last + LULL;
                if lull <= Instant::now() {
                    return;
                }
                tokio::select! {
                    () = sleep_until(lull) => continue,
                    changed = calls.changed() => changed.expect("this holds a sender"),
                }
            } else {
                calls.changed().await.expect("this holds a sender");
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.0.send_modify(|now| {
            now.changing -= usize::from(self.is_change);
            now.last = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lull_comes_after_every_boot_and_reset_and_a_moment_after_a_tool_began() {
        let calls = Calls::default();
        let reset = calls.change();
        let waits = async {
            tokio::select! {
                () = calls.lull() => panic!("a reset is under way"),
                () = tokio::time::sleep(LULL * 100) => {}
            }
        };
        waits.await;
        drop(reset);
        let tool = calls.tool();
        let began = Instant::now();
        calls.lull().await;
        assert_eq!(began.elapsed(), LULL);
        drop(tool);
        calls.lull().await;
        assert_eq!(began.elapsed(), LULL * 2);
    }
}
