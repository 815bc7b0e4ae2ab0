//! [`Spares`]: machines that are prepared in the background and wait for the next reset.
//!
//! ```text
//!            start                stage                    prewarm
//!   nothing ------> started, empty ----> restored and paused ----> prewarmed and paused: a spare
//!                          |                     |                        |
//!                          +------ take ---------+--------- take ---------+---> proved again, in service
//! ```
//!
//! One background task prepares them, one step at a time. A reset takes a spare if one waits, otherwise the machine
//! that is being prepared, after the step that is under way. If no spares are configured, that is an empty VMM that was
//! started ahead. The step `start` begins as soon as a machine is missing ([`CallActivity::start`]), the others in a
//! pause between calls ([`CallActivity::lull`]).

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::Event;
use super::call_activity::CallActivity;
use super::event_sender::Events;
use super::reset_target::{ResetTarget, RevertFailure};

use crate::causes::Causes;
use crate::machine::{Machine, Staged, Steps};
use crate::offload;
use crate::vmm::Ended;

/// How long the task pauses after its first failure. Each further failure doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long to wait for the end of a start that is no longer needed. A VMM that takes longer hangs and is killed.
const START_LIMIT: Duration = Duration::from_secs(2);

type Pinned<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A machine for the next reset.
pub(super) struct PreparedMachine {
    pub(super) machine: Machine,
    /// The machine's restored and paused VM. `None` if the machine is empty.
    pub(super) staged: Option<Staged>,
    ended: Pinned<Ended>,
}

/// The spares of a golden snapshot, with the task that prepares them. Dropping it ends the task and kills all spares.
pub(super) struct Spares {
    requests: mpsc::UnboundedSender<Request>,
    task: AbortHandle,
}

enum Request {
    /// Keep no spare from now on, only an empty VMM that is started ahead.
    Retire,
    Take(oneshot::Sender<Result<Option<PreparedMachine>, RevertFailure>>),
    Stop(oneshot::Sender<()>),
}

impl Spares {
    /// Starts the task. It keeps `capacity` spares until [`retire`](Self::retire) or [`stop`](Self::stop).
    pub(super) fn start(
        target: Arc<ResetTarget>,
        capacity: usize,
        events: Arc<Events>,
        calls: CallActivity,
    ) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        let refill = SpareMaker {
            target,
            capacity,
            events,
            calls,
            ready: VecDeque::new(),
            making: None,
            step: None,
            ending: JoinSet::new(),
            waiting: VecDeque::new(),
            resting_until: None,
            pause: FIRST_PAUSE,
        };
        Spares {
            requests,
            task: tokio::spawn(refill.run(inbox)).abort_handle(),
        }
    }

    /// Takes the spare that has waited longest, or if there is none, the machine that is being prepared, staged or
    /// empty. Returns `None` if another reset already waits for that machine. The caller then starts a machine itself,
    /// so that both resets go on at the same time.
    pub(super) async fn take(&self) -> Result<Option<PreparedMachine>, RevertFailure> {
        let (reply, taken) = oneshot::channel();
        // The task ends only when this is dropped, or with the runtime. In the latter case this call never returns.
        let _ = self.requests.send(Request::Take(reply));
        match taken.await {
            Ok(taken) => taken,
            Err(_) => std::future::pending().await,
        }
    }

    /// Kills the spares and prepares no further ones. Later resets to this target use empty VMMs.
    pub(super) fn retire(&self) {
        // If the task is gone, there are no spares to kill.
        let _ = self.requests.send(Request::Retire);
    }

    /// Kills the spares and ends the task. May be called again if the future of an earlier call was dropped.
    pub(super) async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        let _ = self.requests.send(Request::Stop(reply));
        // It fails if the task has ended already.
        let _ = stopped.await;
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A step in the preparation of a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PreparationStep {
    Start,
    Stage,
    Prewarm,
}

/// The state of the background task.
struct SpareMaker {
    target: Arc<ResetTarget>,
    /// How many spares to keep ready. With 0, one empty machine is kept.
    capacity: usize,
    events: Arc<Events>,
    calls: CallActivity,
    /// The spares, the one that has waited longest first.
    ready: VecDeque<PreparedMachine>,
    /// The machine that is being prepared, between two steps.
    making: Option<PreparedMachine>,
    /// The step that is under way. It owns the machine meanwhile.
    step: Option<(
        PreparationStep,
        Pinned<Result<PreparedMachine, RevertFailure>>,
    )>,
    /// Tasks that kill retired spares.
    ending: JoinSet<()>,
    /// Resets that wait for the end of the step.
    waiting: VecDeque<oneshot::Sender<Result<Option<PreparedMachine>, RevertFailure>>>,
    /// The end of the pause after a failure.
    resting_until: Option<Instant>,
    /// The length of the next pause.
    pause: Duration,
}

impl SpareMaker {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            // A reset doesn't wait for the end of a pause: its machine is started at once.
            if !self.waiting.is_empty() && self.step.is_none() {
                self.begin(PreparationStep::Start);
            }
            let calls = self.calls.clone();
            let next = self.next_step();
            let resting_until = self.resting_until;
            let begin = async {
                if let Some(until) = resting_until {
                    sleep_until(until).await;
                }
                match next {
                    PreparationStep::Start => calls.start().await,
                    PreparationStep::Stage | PreparationStep::Prewarm => calls.lull().await,
                }
            };
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(Request::Take(reply)) => self.hand_over(reply),
                    Some(Request::Retire) => self.retire(),
                    Some(Request::Stop(stopped)) => {
                        self.stop().await;
                        // It fails if the caller is gone, who then needs no answer.
                        let _ = stopped.send(());
                        return;
                    }
                    None => return,
                },
                (step, made) = end_of(&mut self.step) => {
                    self.step = None;
                    self.made(step, made);
                }
                ended = first_end(self.ready.iter_mut().chain(&mut self.making)) => self.remove(ended),
                () = begin, if self.step.is_none() && self.lacks() => {
                    self.resting_until = None;
                    self.begin(next);
                }
            }
        }
    }

    /// Whether a spare is missing, or with a capacity of 0 the machine that is started ahead.
    fn lacks(&self) -> bool {
        match self.capacity {
            0 => self.making.is_none(),
            capacity => self.ready.len() < capacity,
        }
    }

    fn next_step(&self) -> PreparationStep {
        match &self.making {
            None => PreparationStep::Start,
            Some(PreparedMachine { staged: None, .. }) => PreparationStep::Stage,
            Some(_) => PreparationStep::Prewarm,
        }
    }

    fn begin(&mut self, step: PreparationStep) {
        let target = Arc::clone(&self.target);
        let work: Pinned<_> = match (step, self.making.take()) {
            (PreparationStep::Start, _) | (_, None) => Box::pin(async move {
                let machine = target.start().await?;
                Ok(PreparedMachine::new(machine))
            }),
            (_, Some(next)) => Box::pin(next.forward(target)),
        };
        self.step = Some((step, work));
    }

    /// Answers a reset with a spare or with the machine between two steps, or lets it wait for the end of the step.
    fn hand_over(
        &mut self,
        reply: oneshot::Sender<Result<Option<PreparedMachine>, RevertFailure>>,
    ) {
        self.waiting.retain(|reply| !reply.is_closed());
        match self.ready.pop_front().or_else(|| self.making.take()) {
            // If the reset was dropped meanwhile, the machine is kept as the one that is being prepared.
            Some(next) => {
                if let Err(Ok(next)) = reply.send(Ok(Some(next))) {
                    self.making = next;
                }
            }
            None if self.waiting.is_empty() => self.waiting.push_back(reply),
            // It fails if the caller is gone, who then needs no answer.
            None => drop(reply.send(Ok(None))),
        }
    }

    /// Takes the result of a step: gives the machine to a reset that waits, or keeps it for the next step or as a
    /// spare.
    fn made(&mut self, step: PreparationStep, made: Result<PreparedMachine, RevertFailure>) {
        let asked = std::iter::from_fn(|| self.waiting.pop_front()).find(|it| !it.is_closed());
        match (made, asked) {
            (Ok(next), Some(reply)) => {
                self.pause = FIRST_PAUSE;
                if let Err(Ok(next)) = reply.send(Ok(Some(next))) {
                    self.making = next;
                }
            }
            (Ok(next), None) if step == PreparationStep::Prewarm => {
                self.pause = FIRST_PAUSE;
                self.ready.push_back(next);
                self.events.emit(Event::SpareReady);
            }
            (Ok(next), None) => self.making = Some(next),
            (Err(failure), Some(reply)) if step == PreparationStep::Start => {
                self.rest();
                // It fails if the caller is gone, who then needs no answer.
                let _ = reply.send(Err(failure));
            }
            (Err(failure), asked) => {
                self.waiting.extend(asked);
                let pause = self.rest();
                tracing::warn!(error = %Causes(&failure), ?pause, "a spare could not be prepared");
                self.events.emit(Event::SpareFailed(failure.into()));
            }
        }
    }

    /// Begins a pause, in which only a reset that waits has a machine started. Returns the length of the pause.
    fn rest(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        self.resting_until = Some(Instant::now() + pause);
        pause
    }

    /// Drops the spare whose VMM has ended.
    fn remove(&mut self, ended: Ended) {
        let is_it = |next: &PreparedMachine| {
            next.machine.vmm().process().map(|it| it.pid()) == Some(ended.pid)
        };
        self.ready.retain(|next| !is_it(next));
        self.making.take_if(|next| is_it(next));
        tracing::warn!(%ended, "the VMM of a spare ended by itself");
        self.events.emit(Event::SpareEnded(ended));
    }

    fn retire(&mut self) {
        self.capacity = 0;
        while self.ending.try_join_next().is_some() {}
        for next in self.ready.drain(..) {
            self.ending.spawn(next.end());
        }
    }

    async fn stop(self) {
        let mut ending = self.ending;
        if let Some((PreparationStep::Start, start)) = self.step {
            ending.spawn(PreparedMachine::end_start(start));
        }
        for next in self.ready.into_iter().chain(self.making) {
            ending.spawn(next.end());
        }
        ending.join_all().await;
    }
}

impl PreparedMachine {
    pub(super) fn new(machine: Machine) -> Self {
        PreparedMachine {
            ended: Box::pin(machine.vmm().ended()),
            machine,
            staged: None,
        }
    }

    /// Makes the next step: stages an empty machine, or prewarms a staged one.
    async fn forward(mut self, target: Arc<ResetTarget>) -> Result<PreparedMachine, RevertFailure> {
        let machine = &mut self.machine;
        let staged = match self.staged.take() {
            None => {
                target.ensure().await?;
                target.stage(machine, &mut Steps::start()).await
            }
            Some(staged) => target.prewarm(machine, staged).await,
        };
        self.staged = Some(staged?);
        Ok(self)
    }

    /// Waits for the end of a start that is no longer needed, then kills the machine: a process can only be killed once
    /// it is there.
    pub(super) async fn end_start(
        start: impl Future<Output = Result<PreparedMachine, RevertFailure>>,
    ) {
        if let Ok(Ok(next)) = timeout(START_LIMIT, start).await {
            next.end().await;
        }
    }

    /// Kills the VMM and removes its files.
    pub(super) async fn end(mut self) {
        if let Err(error) = self.machine.kill().await {
            tracing::error!(error = %Causes(&error), "a VMM that is no longer needed could not be killed");
        }
        offload::blocking(move || drop(self)).await;
    }
}

/// Waits for the end of the step. Never resolves if no step is under way.
async fn end_of(
    step: &mut Option<(
        PreparationStep,
        Pinned<Result<PreparedMachine, RevertFailure>>,
    )>,
) -> (PreparationStep, Result<PreparedMachine, RevertFailure>) {
    match step {
        Some((step, work)) => (*step, work.await),
        None => std::future::pending().await,
    }
}

/// Waits until the VMM of one of these machines has ended. Never resolves if there are none.
async fn first_end<'a>(machines: impl Iterator<Item = &'a mut PreparedMachine>) -> Ended {
    let mut ends: Vec<_> = machines.map(|next| &mut next.ended).collect();
    poll_fn(|context| {
        let mut ends = ends.iter_mut();
        match ends.find_map(|end| match end.as_mut().poll(context) {
            Poll::Ready(ended) => Some(ended),
            Poll::Pending => None,
        }) {
            Some(ended) => Poll::Ready(ended),
            None => Poll::Pending,
        }
    })
    .await
}
