//! The calls that are under way, so that work in the background keeps out of their way.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// How long after the last call began or ended the background work goes on. It shares the processors with a tool that runs
/// longer, since the next reset is to find a spare.
const LULL: Duration = Duration::from_millis(25);

/// The same where there is one processor and a tool runs, which the background work would slow down.
const LONG_LULL: Duration = Duration::from_secs(1);

/// Counts the calls of a sandbox.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    now: Arc<watch::Sender<Now>>,
    /// Whether there is one processor for everything.
    one_processor: bool,
    /// Whether they are of a pool, one of whose sandboxes is always in a call.
    of_pool: bool,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    /// Boots and resets under way.
    changing: usize,
    /// Tools that run.
    tools: usize,
    /// When a call last began or ended.
    last: Instant,
    /// How long the last tool took.
    tool_took: Duration,
}

/// A call that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Call {
    calls: Calls,
    is_change: bool,
    began: Instant,
}

impl Default for Calls {
    fn default() -> Self {
        let processors = std::thread::available_parallelism();
        Calls::on(processors.map_or(1, NonZeroUsize::get))
    }
}

impl Calls {
    fn on(processors: usize) -> Self {
        Calls {
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
        Calls {
            of_pool: true,
            ..Calls::default()
        }
    }

    /// A boot or a reset begins: no step in the background begins before it has ended.
    pub(super) fn change(&self) -> Call {
        self.begin(true)
    }

    /// A tool begins.
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

    /// Waits until a process may be started: at once where there is another processor for it, else for a [lull](Self::lull).
    pub(super) async fn start(&self) {
        if self.one_processor {
            self.lull().await;
        }
    }

    /// Waits until no boot or reset is under way, and no call began or ended for a moment. In a pool, for a second at most
    /// where there is another processor.
    pub(super) async fn lull(&self) {
        match self.of_pool && !self.one_processor {
            // An error says that the second is over.
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

    /// How long the moment is. Where calls follow each other without one, on one processor, nothing comes between them.
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

    /// How long a lull takes to come.
    async fn lull(calls: &Calls) -> Duration {
        let began = Instant::now();
        calls.lull().await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lull_comes_after_every_boot_and_reset_and_a_moment_after_a_tool_began() {
        let calls = Calls::on(2);
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
    async fn on_one_processor_it_comes_after_more_than_the_time_of_a_tool() {
        let calls = Calls::on(1);
        let tool = calls.tool();
        assert_eq!(lull(&calls).await, LONG_LULL, "one that takes long");
        drop(tool);
        let tool = calls.tool();
        sleep(LULL * 4).await;
        drop(tool);
        assert_eq!(lull(&calls).await, LULL * 8);
        drop(calls.change());
        assert_eq!(lull(&calls).await, LULL * 8);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_waited_for_no_longer_than_a_second_in_a_pool() {
        let calls = Calls {
            of_pool: true,
            ..Calls::on(2)
        };
        let _reset = calls.change();
        assert_eq!(lull(&calls).await, LONG_LULL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_is_started_at_once_where_there_is_another_processor() {
        let began = Instant::now();
        let calls = Calls::on(2);
        let _reset = calls.change();
        calls.start().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        let calls = Calls::on(1);
        drop(calls.change());
        calls.start().await;
        assert_eq!(began.elapsed(), LULL);
    }
}
