//! Spares: machines that wait restored, proved, prewarmed and paused for the next reset.
//!
//! ```text
//!            refill               reset
//!   nothing -------> waiting -----------> proved again, resumed, verified, in service
//!                       |
//!                       +--> gone: too old, its VMM died, not what it was, the sandbox halts or shuts down
//! ```
//!
//! One task refills the pool, one spare at a time, and only while no boot or reset is under way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch as watched};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::reset_target::{Failure, Prepared, ResetTarget};
use super::retired::Retired;
use super::status::Status;
use super::watch::Watcher;
use crate::causes::Causes;
use crate::machine::Machine;
use crate::sandbox::Event;

/// How long the refill rests after its first failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest of those rests.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the refill rests after each failure in a row.
struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Pauses { next: FIRST_PAUSE }
    }
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// The spares of a sandbox with the task that makes them. Dropped, it ends all of them.
#[derive(Default)]
pub(super) struct Spares {
    pool: Arc<Pool>,
    refill: Mutex<Option<JoinHandle<()>>>,
}

/// What the refill needs to know.
pub(super) struct Refill {
    pub(super) target: Arc<ResetTarget>,
    /// How many spares there are to be.
    pub(super) capacity: usize,
    pub(super) max_age: Duration,
    /// How many boots and resets are under way or wait for their turn.
    pub(super) busy: watched::Receiver<usize>,
    pub(super) status: Arc<Status>,
}

#[derive(Default)]
struct Pool {
    /// The oldest first.
    waiting: Mutex<VecDeque<Spare>>,
    /// A spare left.
    left: Notify,
}

struct Spare {
    machine: Machine,
    prepared: Prepared,
    expires: Instant,
    /// Takes the spare away when its VMM ends.
    _watcher: Watcher,
}

impl Spares {
    /// Begins to make spares, and goes on until [`stop`](Self::stop).
    pub(super) fn start(&self, refill: Refill) {
        let task = tokio::spawn(refill.run(Arc::clone(&self.pool)));
        if let Some(earlier) = self.task().replace(task) {
            earlier.abort();
        }
    }

    /// A spare that is young enough. The older ones are retired.
    pub(super) fn take(&self, retired: &Retired) -> Option<(Machine, Prepared)> {
        loop {
            let spare = self.pool.waiting().pop_front()?;
            self.pool.left.notify_one();
            if spare.expires > Instant::now() {
                return Some((spare.machine, spare.prepared));
            }
            retired.add(spare.machine);
        }
    }

    /// Makes no more spares, and retires those that wait.
    pub(super) async fn stop(&self, retired: &Retired) {
        let task = self.task().take();
        if let Some(task) = task {
            task.abort();
            // It was aborted, so it has nothing to say; what it held is gone then.
            let _ = task.await;
        }
        for spare in self.pool.waiting().drain(..) {
            retired.add(spare.machine);
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.refill.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        if let Some(task) = self.task().take() {
            task.abort();
        }
        self.pool.waiting().clear();
    }
}

impl Pool {
    /// Nothing that holds this lock can leave it half-changed.
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Spare>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(self: &Arc<Self>, machine: Machine, prepared: Prepared, refill: &Refill) {
        let pool = Arc::downgrade(self);
        let status = Arc::clone(&refill.status);
        let ended = machine.vmm().ended();
        let mut waiting = self.waiting();
        let watcher = tokio::spawn(async move {
            let ended = ended.await;
            if let Some(pool) = pool.upgrade() {
                tracing::warn!(%ended, "the VMM of a spare ended by itself");
                pool.remove(ended.pid);
                pool.left.notify_one();
                status.tell(Event::SpareEnded(ended));
            }
        });
        waiting.push_back(Spare {
            machine,
            prepared,
            expires: Instant::now() + refill.max_age,
            _watcher: Watcher(watcher.abort_handle()),
        });
    }

    fn remove(&self, pid: u32) {
        let is_it = |spare: &Spare| spare.machine.vmm().process().map(|it| it.pid()) == Some(pid);
        self.waiting().retain(|spare| !is_it(spare));
    }

    /// Those that are too old.
    fn expired(&self) -> Vec<Machine> {
        let mut waiting = self.waiting();
        let now = Instant::now();
        let old = waiting.iter().take_while(|spare| spare.expires <= now);
        let old = old.count();
        waiting.drain(..old).map(|spare| spare.machine).collect()
    }

    /// Returns when a spare left, or is too old.
    async fn changed(&self) {
        let expires = self.waiting().front().map(|spare| spare.expires);
        let expired = async {
            match expires {
                Some(expires) => sleep_until(expires).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.left.notified() => {}
            () = expired => {}
        }
    }
}

impl Refill {
    async fn run(mut self, pool: Arc<Pool>) {
        let mut pauses = Pauses::default();
        loop {
            for machine in pool.expired() {
                machine.shutdown().await;
            }
            if pool.waiting().len() >= self.capacity {
                pool.changed().await;
                continue;
            }
            match self.prepare().await {
                Ok((machine, prepared)) => {
                    pool.put(machine, prepared, &self);
                    pauses = Pauses::default();
                    self.status.tell(Event::SpareReady);
                }
                Err(error) => {
                    let pause = pauses.next();
                    tracing::error!(error = %Causes(&error), ?pause, "a spare could not be prepared");
                    self.status.tell(Event::SpareFailed(Arc::new(error.into())));
                    sleep(pause).await;
                }
            }
        }
    }

    async fn prepare(&mut self) -> Result<(Machine, Prepared), Failure> {
        self.idle().await;
        let mut machine = self.target.start().await?;
        self.idle().await;
        let prepared = self.target.stage(&mut machine).await?;
        self.idle().await;
        let prepared = self.target.prewarm(&mut machine, prepared).await?;
        Ok((machine, prepared))
    }

    /// Waits until no boot or reset is under way.
    async fn idle(&mut self) {
        if self.busy.wait_for(|busy| *busy == 0).await.is_err() {
            // The sandbox is gone, and this task is about to be.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refill_rests_longer_after_each_failure_up_to_a_limit() {
        let mut pauses = Pauses::default();
        let seconds: Vec<_> = (0..8).map(|_| pauses.next().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
