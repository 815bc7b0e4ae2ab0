//! [`PoolTask`]: the task of a pool. It boots, hands out, resets and discards sandboxes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::budget::Budget;
use super::request::{Member, Request};
use super::{PoolConfig, PoolStatus, PooledSandbox};
use crate::causes::Causes;
use crate::golden::LoadedGolden;
use crate::machine::VmmSource;
use crate::sandbox::call_activity::CallActivity;
use crate::sandbox::event_sender::Events;
use crate::sandbox::shared_target::SharedTarget;
use crate::sandbox::{Advice, ChvSandbox, Error, Event, FailedReset, Reset, Sandbox, SandboxState};

/// The pool halts at this many unverified resets in a row. Each is of another sandbox.
const MOST_DIVERGENCES: u32 = 2;

/// How long no boot begins after the first boot or reset that failed. Each further failure doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The pool's present golden snapshot, or one that was replaced.
struct GoldenGeneration {
    number: u64,
    golden: Arc<LoadedGolden>,
    shared_target: Arc<SharedTarget>,
}

impl GoldenGeneration {
    fn start(
        number: u64,
        golden: Arc<LoadedGolden>,
        config: &PoolConfig,
        source: &VmmSource,
        events: &Arc<Events>,
        calls: &CallActivity,
    ) -> Result<GoldenGeneration, Error> {
        let (origin, limits) = (config.golden()?, config.sandbox.limits);
        let loaded = Arc::clone(&golden);
        let shared_target =
            SharedTarget::start(loaded, origin, source, limits, events, calls.clone());
        Ok(GoldenGeneration {
            number,
            golden,
            shared_target: Arc::new(shared_target),
        })
    }
}

/// The result of a background task on a sandbox.
enum TaskResult {
    /// The sandbox was booted or reset, with this result.
    Tried(Member, Result<(), Error>),
    /// The sandbox was shut down and dropped.
    Discarded,
}

/// Whether sandboxes are handed out.
enum Service {
    Open,
    /// No, since two resets in a row were not verified.
    Halted(Arc<FailedReset>),
    /// No, since the pool was drained or shut down.
    Closed,
}

/// The state of the task.
pub(super) struct PoolTask {
    config: PoolConfig,
    source: VmmSource,
    /// Sandboxes are given back through this sender.
    requests: mpsc::WeakUnboundedSender<Request>,
    budget: Budget,
    /// The most memory that golden snapshots and VMMs may take, in bytes.
    memory: u64,
    events: Arc<Events>,
    status: watch::Sender<PoolStatus>,
    calls: CallActivity,
    present: GoldenGeneration,
    /// Golden snapshots that were replaced and still have sandboxes.
    past: Vec<GoldenGeneration>,
    last_number: u64,
    /// Clean and ready sandboxes, the one that has waited longest first.
    idle: VecDeque<Member>,
    /// One task for each sandbox that became idle. It returns the sandbox's number once the sandbox isn't ready any
    /// more.
    watched: JoinSet<u64>,
    /// The sandboxes that callers have, by number, with their generation.
    acquired: HashMap<u64, (Arc<ChvSandbox>, u64)>,
    /// Tasks that boot, reset or discard a sandbox.
    working: JoinSet<TaskResult>,
    /// How many of these boot or reset a sandbox, which may be handed out afterwards.
    preparing: usize,
    /// Callers of `acquire`, in the order of their calls.
    waiting: VecDeque<oneshot::Sender<Result<PooledSandbox, Error>>>,
    service: Service,
    /// Callers of `drain` and `shutdown`.
    closing: Vec<oneshot::Sender<()>>,
    /// How many resets in a row were not verified.
    divergences: u32,
    last_error: Option<Arc<Error>>,
    /// The end of the pause after a failed boot or reset.
    resting_until: Option<Instant>,
    /// The length of the next pause.
    pause: Duration,
}

impl PoolTask {
    pub(super) fn new(
        config: PoolConfig,
        source: VmmSource,
        golden: Arc<LoadedGolden>,
        events: Arc<Events>,
        status: watch::Sender<PoolStatus>,
        (budget, memory): (Budget, u64),
        requests: mpsc::WeakUnboundedSender<Request>,
    ) -> Result<PoolTask, Error> {
        let calls = CallActivity::of_pool();
        let present = GoldenGeneration::start(0, golden, &config, &source, &events, &calls)?;
        Ok(PoolTask {
            config,
            source,
            requests,
            budget,
            memory,
            events,
            status,
            calls,
            present,
            past: Vec::new(),
            last_number: 0,
            idle: VecDeque::new(),
            watched: JoinSet::new(),
            acquired: HashMap::new(),
            working: JoinSet::new(),
            preparing: 0,
            waiting: VecDeque::new(),
            service: Service::Open,
            closing: Vec::new(),
            divergences: 0,
            last_error: None,
            resting_until: None,
            pause: FIRST_PAUSE,
        })
    }

    pub(super) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            self.hand_out();
            self.prepare();
            self.settle().await;
            self.tell_status();
            let resting_until = self.resting_until;
            let rested = async {
                match resting_until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(request) => self.take(request).await,
                    // The last handle is gone. The sandboxes that are dropped here kill their VMMs.
                    None => return,
                },
                Some(worked) = self.working.join_next() => match worked {
                    Ok(worked) => self.worked(worked),
                    Err(error) => tracing::error!(error = %Causes(&error), "a task on a sandbox of the pool panicked"),
                },
                Some(Ok(number)) = self.watched.join_next() => self.reset_idle(number),
                () = rested => self.resting_until = None,
            }
        }
    }

    async fn take(&mut self, request: Request) {
        match request {
            Request::Acquire(reply) => match &self.service {
                Service::Open => self.waiting.push_back(reply),
                // It fails if the caller is gone, who then needs no answer.
                Service::Closed => drop(reply.send(Err(Error::PoolClosed))),
                Service::Halted(failed) => {
                    drop(reply.send(Err(Error::PoolHalted(Arc::clone(failed)))));
                }
            },
            Request::Release { member, reply } => self.release(member, reply),
            Request::Replace { golden, reply } => {
                let _ = reply.send(self.replace(golden));
            }
            Request::Drain(reply) => self.close(reply),
            Request::Shutdown(reply) => {
                // Callers may keep their handles: a handle of a sandbox that was shut down holds no VMM.
                for (sandbox, _) in self.acquired.drain().map(|(_, acquired)| acquired) {
                    self.working.spawn(async move {
                        sandbox.shutdown().await;
                        TaskResult::Discarded
                    });
                }
                self.close(reply);
            }
        }
    }

    /// Gives clean sandboxes to the callers that wait.
    fn hand_out(&mut self) {
        self.waiting.retain(|reply| !reply.is_closed());
        while !self.waiting.is_empty() {
            let Some(member) = self.idle.pop_front() else {
                break;
            };
            // Its VMM may have ended just now.
            if !matches!(member.sandbox.state(), SandboxState::Ready) {
                self.reset(member, None);
                continue;
            }
            let Some(reply) = self.waiting.pop_front() else {
                break;
            };
            let number = member.number;
            let acquired = (Arc::clone(&member.sandbox), member.generation);
            self.acquired.insert(number, acquired);
            self.events.emit(Event::Acquired { sandbox: number });
            // If the caller is gone, the reply is dropped with the sandbox, which gives the sandbox back.
            let sandbox = PooledSandbox::new(member, self.requests.clone());
            drop(reply.send(Ok(sandbox)));
        }
    }

    /// Boots sandboxes until there are enough for `idle` and for the callers that wait, as far as `size` allows.
    fn prepare(&mut self) {
        if !matches!(self.service, Service::Open) || self.resting_until.is_some() {
            return;
        }
        let wanted = self.waiting.len() + self.config.idle as usize;
        while self.idle.len() + self.preparing < wanted
            && self.members() < self.config.size as usize
        {
            self.last_number += 1;
            let shared_target = Arc::clone(&self.present.shared_target);
            let (config, source) = (self.config.sandbox.clone(), self.source.clone());
            let member = Member {
                number: self.last_number,
                sandbox: Arc::new(ChvSandbox::of_pool(config, source, shared_target)),
                generation: self.present.number,
            };
            self.preparing += 1;
            self.working.spawn(async move {
                let booted = member.sandbox.boot().await;
                TaskResult::Tried(member, booted)
            });
        }
    }

    /// How many sandboxes there are. A sandbox that is being discarded counts until its VMM has ended.
    fn members(&self) -> usize {
        self.idle.len() + self.acquired.len() + self.working.len()
    }

    fn release(&mut self, member: Member, reply: Option<oneshot::Sender<Result<Reset, Error>>>) {
        self.acquired.remove(&member.number);
        let sandbox = member.number;
        self.events.emit(Event::Released { sandbox });
        let is_present = member.generation == self.present.number;
        match self.service {
            Service::Open if is_present => self.reset(member, reply),
            // The reply is dropped, so `recycle` returns `PoolClosed`.
            _ => self.discard(member),
        }
    }

    fn reset(&mut self, member: Member, reply: Option<oneshot::Sender<Result<Reset, Error>>>) {
        self.preparing += 1;
        self.working.spawn(async move {
            let reset = member.sandbox.reset().await;
            let outcome = match &reset {
                Ok(_) => Ok(()),
                Err(error) => Err(error.clone()),
            };
            if let Some(reply) = reply {
                // It fails if the caller is gone, who then needs no answer.
                let _ = reply.send(reset);
            }
            TaskResult::Tried(member, outcome)
        });
    }

    fn discard(&mut self, member: Member) {
        self.working.spawn(async move {
            member.sandbox.shutdown().await;
            TaskResult::Discarded
        });
    }

    fn worked(&mut self, worked: TaskResult) {
        let TaskResult::Tried(member, outcome) = worked else {
            return;
        };
        self.preparing -= 1;
        match outcome {
            Ok(()) => {
                (self.divergences, self.last_error) = (0, None);
                (self.resting_until, self.pause) = (None, FIRST_PAUSE);
                let is_present = member.generation == self.present.number;
                match self.service {
                    Service::Open if is_present => self.keep(member),
                    _ => self.discard(member),
                }
            }
            Err(error) => {
                let is_present = member.generation == self.present.number;
                self.discard(member);
                if is_present {
                    self.failed(error);
                }
            }
        }
    }

    /// Adds a clean sandbox to the idle ones, and watches whether it stays ready.
    fn keep(&mut self, member: Member) {
        let (number, sandbox) = (member.number, Arc::clone(&member.sandbox));
        self.watched.spawn(async move {
            sandbox.no_longer_ready().await;
            number
        });
        self.idle.push_back(member);
    }

    /// Resets the sandbox of this number, which isn't ready any more, if it is idle.
    fn reset_idle(&mut self, number: u64) {
        let is_it = |member: &Member| {
            member.number == number && !matches!(member.sandbox.state(), SandboxState::Ready)
        };
        let at = self.idle.iter().position(is_it);
        if let Some(member) = at.and_then(|at| self.idle.remove(at)) {
            self.reset(member, None);
        }
    }

    /// Reacts to a boot or a reset that failed: halts the pool, refuses the callers that wait, or pauses.
    fn failed(&mut self, error: Error) {
        tracing::warn!(error = %Causes(&error), "a sandbox of the pool is discarded");
        if let Some(failed) = error.shared_failed_reset() {
            self.divergences += 1;
            if self.divergences >= MOST_DIVERGENCES && matches!(self.service, Service::Open) {
                tracing::error!("two resets in a row were not verified, so the pool has halted");
                self.refuse(&Error::PoolHalted(Arc::clone(&failed)));
                self.service = Service::Halted(failed);
            }
        } else if error.advice() == Advice::GiveUp && !matches!(error, Error::ShutDown) {
            self.refuse(&error);
        }
        self.last_error = Some(Arc::new(error));
        self.resting_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Answers every caller that waits with this error.
    fn refuse(&mut self, error: &Error) {
        for reply in self.waiting.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
    }

    fn replace(&mut self, golden: Arc<LoadedGolden>) -> Result<(), Error> {
        if !matches!(self.service, Service::Open) {
            return Err(Error::PoolClosed);
        }
        let mut goldens: Vec<&LoadedGolden> = vec![&golden, &self.present.golden];
        goldens.extend(self.past.iter().map(|past| &*past.golden));
        self.memory = self.budget.check(&goldens)?;
        let number = self.present.number + 1;
        let (config, source) = (&self.config, &self.source);
        let next =
            GoldenGeneration::start(number, golden, config, source, &self.events, &self.calls)?;
        let before = std::mem::replace(&mut self.present, next);
        // Its reset target stays: the callers of its sandboxes may reset them.
        before.shared_target.retire();
        self.past.push(before);
        let idle: Vec<Member> = self.idle.drain(..).collect();
        idle.into_iter().for_each(|member| self.discard(member));
        self.divergences = 0;
        (self.resting_until, self.pause) = (None, FIRST_PAUSE);
        Ok(())
    }

    fn close(&mut self, reply: oneshot::Sender<()>) {
        self.service = Service::Closed;
        self.refuse(&Error::PoolClosed);
        self.closing.push(reply);
    }

    /// Discards idle sandboxes of a closed pool, drops golden snapshots without sandboxes, and answers `drain` and
    /// `shutdown`.
    async fn settle(&mut self) {
        if !matches!(self.service, Service::Open) {
            let idle: Vec<Member> = self.idle.drain(..).collect();
            idle.into_iter().for_each(|member| self.discard(member));
        }
        if !self.past.is_empty() && self.preparing == 0 {
            let used = |number: u64| self.acquired.values().any(|(_, of)| *of == number);
            let gone: Vec<GoldenGeneration> =
                self.past.extract_if(.., |it| !used(it.number)).collect();
            for generation in gone {
                generation.shared_target.stop().await;
            }
        }
        if matches!(self.service, Service::Closed) && self.members() == 0 {
            self.present.shared_target.stop().await;
            for reply in self.closing.drain(..) {
                let _ = reply.send(());
            }
        }
    }

    fn tell_status(&self) {
        let status = PoolStatus {
            idle: self.idle.len(),
            acquired: self.acquired.len(),
            in_progress: self.working.len(),
            waiting: self.waiting.len(),
            last_error: self.last_error.clone(),
            memory_bytes: self.memory,
            closed: !matches!(self.service, Service::Open),
        };
        #[cfg(feature = "metrics")]
        crate::sandbox::metrics::show_pool(&status);
        self.status.send_replace(status);
    }
}
