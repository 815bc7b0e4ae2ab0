//! Spares: machines that wait for the next reset.
//!
//! ```text
//!       start at once or in a lull  in a lull                     in a lull
//!   nothing ----------> started, empty ----> restored and paused ----> prewarmed and paused: a spare
//!                          |                     |                        |
//!                          +------ take ---------+--------- take ---------+---> proved again, in service
//! ```
//!
//! One task makes them, one step at a time. A reset takes a spare if one waits, else the machine that is in the making,
//! after the step that is under way; with no spares configured that is a VMM that was started ahead and is empty. The
//! first step begins as soon as there is too little ([`Calls::start`](super::calls::Calls::start)), the others when no call
//! is under way ([`Calls::lull`](super::calls::Calls::lull)).

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
use super::calls::Calls;
use super::events::Events;
use super::reset_target::{Failure, ResetTarget};

use crate::causes::Causes;
use crate::machine::{Machine, Staged, Steps};
use crate::offload;
use crate::vmm::Ended;

/// How long the task rests after its first failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest of those rests.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a start is waited for that is no longer wanted. A VMM that takes longer hangs, and is killed.
const START_LIMIT: Duration = Duration::from_secs(2);

type Pinned<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A machine for the VM that is to come.
pub(super) struct Next {
    pub(super) machine: Machine,
    /// The VM that waits in it; `None` in an empty one.
    pub(super) staged: Option<Staged>,
    ended: Pinned<Ended>,
}

/// The spares of a golden snapshot with the task that makes them. Dropped, it ends all of them.
pub(super) struct Spares {
    requests: mpsc::UnboundedSender<Request>,
    task: AbortHandle,
}

enum Request {
    /// Keeps none from now on, but a VMM that was started ahead.
    Retire,
    Take(oneshot::Sender<Result<Option<Next>, Failure>>),
    Stop(oneshot::Sender<()>),
}

impl Spares {
    /// Begins to make so many spares, and goes on until [`stop`](Self::stop).
    pub(super) fn start(
        target: Arc<ResetTarget>,
        capacity: usize,
        events: Arc<Events>,
        calls: Calls,
    ) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        let refill = Refill {
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

    /// The spare that waits longest, or else the next machine, staged or empty. `None` where other resets wait for that: then
    /// the caller starts one itself, at the same time as they.
    pub(super) async fn take(&self) -> Result<Option<Next>, Failure> {
        let (reply, taken) = oneshot::channel();
        // The task ends with this, or with the runtime.
        let _ = self.requests.send(Request::Take(reply));
        match taken.await {
            Ok(taken) => taken,
            Err(_) => std::future::pending().await,
        }
    }

    /// Kills the spares, and makes no more: resets to this target go on in VMMs that are empty.
    pub(super) fn retire(&self) {
        // A task that is gone has none.
        let _ = self.requests.send(Request::Retire);
    }

    /// Makes no more, and kills those that there are. May be called again where an earlier call was dropped.
    pub(super) async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        let _ = self.requests.send(Request::Stop(reply));
        // An error says that the task is gone already.
        let _ = stopped.await;
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is done to the machine that is in the making.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Making {
    Start,
    Stage,
    Prewarm,
}

/// The task.
struct Refill {
    target: Arc<ResetTarget>,
    /// How many spares there are to be.
    capacity: usize,
    events: Arc<Events>,
    calls: Calls,
    /// The longest there first.
    ready: VecDeque<Next>,
    /// Between two steps.
    making: Option<Next>,
    step: Option<(Making, Pinned<Result<Next, Failure>>)>,
    /// Spares that are killed.
    ending: JoinSet<()>,
    /// Resets that wait for the step to end.
    waiting: VecDeque<oneshot::Sender<Result<Option<Next>, Failure>>>,
    /// After a failure.
    resting_until: Option<Instant>,
    /// How long the task rests after the next failure.
    pause: Duration,
}

impl Refill {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            // A reset that waits doesn't wait for a pause.
            if !self.waiting.is_empty() && self.step.is_none() {
                self.begin(Making::Start);
            }
            let calls = self.calls.clone();
            let next = self.next_step();
            let resting_until = self.resting_until;
            let begin = async {
                if let Some(until) = resting_until {
                    sleep_until(until).await;
                }
                match next {
                    Making::Start => calls.start().await,
                    Making::Stage | Making::Prewarm => calls.lull().await,
                }
            };
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(Request::Take(reply)) => self.hand_over(reply),
                    Some(Request::Retire) => self.retire(),
                    Some(Request::Stop(stopped)) => {
                        self.stop().await;
                        // The caller may be gone.
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

    /// Whether there is less than there should be: a spare, or a machine that was started ahead.
    fn lacks(&self) -> bool {
        match self.capacity {
            0 => self.making.is_none(),
            capacity => self.ready.len() < capacity,
        }
    }

    fn next_step(&self) -> Making {
        match &self.making {
            None => Making::Start,
            Some(Next { staged: None, .. }) => Making::Stage,
            Some(_) => Making::Prewarm,
        }
    }

    fn begin(&mut self, step: Making) {
        let target = Arc::clone(&self.target);
        let work: Pinned<_> = match (step, self.making.take()) {
            (Making::Start, _) | (_, None) => Box::pin(async move {
                let machine = target.start().await?;
                Ok(Next::new(machine))
            }),
            (_, Some(next)) => Box::pin(next.forward(target)),
        };
        self.step = Some((step, work));
    }

    fn hand_over(&mut self, reply: oneshot::Sender<Result<Option<Next>, Failure>>) {
        self.waiting.retain(|reply| !reply.is_closed());
        match self.ready.pop_front().or_else(|| self.making.take()) {
            // A reset that was given up takes nothing.
            Some(next) => {
                if let Err(Ok(next)) = reply.send(Ok(Some(next))) {
                    self.making = next;
                }
            }
            None if self.waiting.is_empty() => self.waiting.push_back(reply),
            // The caller may be gone.
            None => drop(reply.send(Ok(None))),
        }
    }

    fn made(&mut self, step: Making, made: Result<Next, Failure>) {
        let asked = std::iter::from_fn(|| self.waiting.pop_front()).find(|it| !it.is_closed());
        match (made, asked) {
            (Ok(next), Some(reply)) => {
                self.pause = FIRST_PAUSE;
                if let Err(Ok(next)) = reply.send(Ok(Some(next))) {
                    self.making = next;
                }
            }
            (Ok(next), None) if step == Making::Prewarm => {
                self.pause = FIRST_PAUSE;
                self.ready.push_back(next);
                self.events.tell(Event::SpareReady);
            }
            (Ok(next), None) => self.making = Some(next),
            (Err(failure), Some(reply)) if step == Making::Start => {
                self.rest();
                // A caller that is gone needs no answer.
                let _ = reply.send(Err(failure));
            }
            (Err(failure), asked) => {
                self.waiting.extend(asked);
                let pause = self.rest();
                tracing::warn!(error = %Causes(&failure), ?pause, "a spare could not be prepared");
                self.events.tell(Event::SpareFailed(failure.into()));
            }
        }
    }

    /// Begins nothing for a while, unless a reset waits for it.
    fn rest(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        self.resting_until = Some(Instant::now() + pause);
        pause
    }

    fn remove(&mut self, ended: Ended) {
        let is_it =
            |next: &Next| next.machine.vmm().process().map(|it| it.pid()) == Some(ended.pid);
        self.ready.retain(|next| !is_it(next));
        self.making.take_if(|next| is_it(next));
        tracing::warn!(%ended, "the VMM of a spare ended by itself");
        self.events.tell(Event::SpareEnded(ended));
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
        if let Some((Making::Start, start)) = self.step {
            ending.spawn(Next::end_start(start));
        }
        for next in self.ready.into_iter().chain(self.making) {
            ending.spawn(next.end());
        }
        ending.join_all().await;
    }
}

impl Next {
    pub(super) fn new(machine: Machine) -> Self {
        Next {
            ended: Box::pin(machine.vmm().ended()),
            machine,
            staged: None,
        }
    }

    /// Stages an empty machine, prewarms a staged one.
    async fn forward(mut self, target: Arc<ResetTarget>) -> Result<Next, Failure> {
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

    /// Ends what is being started: a process can't be stopped before it is there.
    pub(super) async fn end_start(start: impl Future<Output = Result<Next, Failure>>) {
        if let Ok(Ok(next)) = timeout(START_LIMIT, start).await {
            next.end().await;
        }
    }

    /// Kills the VMM and removes what it left.
    pub(super) async fn end(mut self) {
        if let Err(error) = self.machine.kill().await {
            tracing::error!(error = %Causes(&error), "a VMM that is no longer needed could not be killed");
        }
        offload::blocking(move || drop(self)).await;
    }
}

/// Waits for the end of a step; for ever where there is none.
async fn end_of(
    step: &mut Option<(Making, Pinned<Result<Next, Failure>>)>,
) -> (Making, Result<Next, Failure>) {
    match step {
        Some((step, work)) => (*step, work.await),
        None => std::future::pending().await,
    }
}

/// Waits until the VMM of one of these has ended.
async fn first_end<'a>(machines: impl Iterator<Item = &'a mut Next>) -> Ended {
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
