//! [`CallActivity`]: counts the calls that are under way, so that the preparation of spares runs between them and
//! doesn't slow them down.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// How long no call may have begun or ended before background work begins. A tool that runs longer shares the
/// processors with that work: otherwise the next reset would find no spare.
const LULL: Duration = Duration::from_millis(25);

/// The longest such time. It is used where there is one processor and a tool runs, since background work would slow the
/// tool down.
const LONG_LULL: Duration = Duration::from_secs(1);

/// Counts the calls of a sandbox, or of all sandboxes of a pool.
#[derive(Clone, Debug)]
pub(super) struct CallActivity {
    now: Arc<watch::Sender<Now>>,
    /// Whether this process has one processor.
    one_processor: bool,
    /// Whether these are the calls of a pool. In a busy pool some sandbox is always in a call.
    of_pool: bool,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    /// The number of boots and resets under way.
    changing: usize,
    /// The number of tools and transfers under way.
    tools: usize,
    /// When a call last began or ended.
    last: Instant,
    /// How long the last tool took.
    tool_took: Duration,
}

/// A call that is under way. Dropping it says that the call has ended.
#[derive(Debug)]
pub(super) struct Call {
    calls: CallActivity,
    is_change: bool,
    began: Instant,
}

impl Default for CallActivity {
    fn default() -> Self {
        let processors = std::thread::available_parallelism();
        CallActivity::on(processors.map_or(1, NonZeroUsize::get))
    }
}

impl CallActivity {
    fn on(processors: usize) -> Self {
        CallActivity {
            now: Arc::new(watch::Sender::new(Now {
                changing: 0,
                tools: 0,
                last: Instant::now(),
                tool_took: Duration::ZERO,
            })),
            one_processor: processors == 1,
            of_pool: false,
        }
    }

    /// The calls of all sandboxes of a pool.
    pub(super) fn of_pool() -> Self {
        CallActivity {
            of_pool: true,
            ..CallActivity::default()
        }
    }

    /// Counts a boot or a reset until the returned [`Call`] is dropped. No background step begins before that.
    pub(super) fn change(&self) -> Call {
        self.begin(true)
    }

    /// Counts a tool or a transfer until the returned [`Call`] is dropped.
    pub(super) fn tool(&self) -> Call {
        self.begin(false)
    }

    fn begin(&self, is_change: bool) -> Call {
        let began = Instant::now();
        self.now.send_modify(|now| {
            now.changing += usize::from(is_change);
            now.tools += usize::from(!is_change);
            now.last = began;
        });
        Call {
            calls: self.clone(),
            is_change,
            began,
        }
    }

    /// Waits until a process may be started in the background: on several processors not at all, on one until a
    /// [lull](Self::lull).
    pub(super) async fn start(&self) {
        if self.one_processor {
            self.lull().await;
        }
    }

    /// Waits for a lull: no boot or reset is under way, and no call has begun or ended for [`LULL`] (on one processor
    /// for longer, see [`pause`](Self::pause)). In a pool on several processors the wait is at most one second, since a
    /// busy pool has no lull.
    pub(super) async fn lull(&self) {
        match self.of_pool && !self.one_processor {
            // A timeout is no failure: the background work begins then all the same.
            true => drop(timeout(LONG_LULL, self.pause_in_calls()).await),
            false => self.pause_in_calls().await,
        }
    }

    async fn pause_in_calls(&self) {
        let mut calls = self.now.subscribe();
        loop {
            let now = *calls.borrow_and_update();
            let until = async {
                match now.changing {
                    0 => sleep_until(now.last + self.pause(&now)).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until => return,
                changed = calls.changed() => changed.expect("this holds a sender"),
            }
        }
    }

    /// How long a lull has to be. On one processor it is twice as long as the last tool took, so that background work
    /// doesn't come between calls that follow each other at that pace.
    fn pause(&self, now: &Now) -> Duration {
        match self.one_processor {
            true if now.tools > 0 => LONG_LULL,
            true => (now.tool_took * 2).clamp(LULL, LONG_LULL),
            false => LULL,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.now.send_modify(|now| {
            now.last = Instant::now();
            match self.is_change {
                true => now.changing -= 1,
                false => {
                    now.tools -= 1;
                    now.tool_took = self.began.elapsed();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// How long `CallActivity::lull` waits.
    async fn lull(calls: &CallActivity) -> Duration {
        let began = Instant::now();
        calls.lull().await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lull_waits_for_the_end_of_a_reset_and_not_for_the_end_of_a_tool() {
        let calls = CallActivity::on(2);
        let reset = calls.change();
        let waits = async {
            tokio::select! {
                () = calls.lull() => panic!("a reset is under way"),
                () = sleep(LULL * 100) => {}
            }
        };
        waits.await;
        drop(reset);
        let tool = calls.tool();
        assert_eq!(lull(&calls).await, LULL);
        drop(tool);
        assert_eq!(lull(&calls).await, LULL);
    }

    #[tokio::test(start_paused = true)]
    async fn on_one_processor_a_lull_is_twice_as_long_as_the_last_tool_took() {
        let calls = CallActivity::on(1);
        let tool = calls.tool();
        assert_eq!(lull(&calls).await, LONG_LULL, "while a tool runs");
        drop(tool);
        let tool = calls.tool();
        sleep(LULL * 4).await;
        drop(tool);
        assert_eq!(lull(&calls).await, LULL * 8);
        drop(calls.change());
        assert_eq!(lull(&calls).await, LULL * 8);
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_pool_the_wait_for_a_lull_is_at_most_a_second() {
        let calls = CallActivity {
            of_pool: true,
            ..CallActivity::on(2)
        };
        let _reset = calls.change();
        assert_eq!(lull(&calls).await, LONG_LULL);
    }

    #[tokio::test(start_paused = true)]
    async fn on_several_processors_a_process_may_be_started_at_once() {
        let began = Instant::now();
        let calls = CallActivity::on(2);
        let _reset = calls.change();
        calls.start().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        let calls = CallActivity::on(1);
        drop(calls.change());
        calls.start().await;
        assert_eq!(began.elapsed(), LULL);
    }
}
