//! The driver of a sandbox: one task that owns its machine, and does what the sandbox's handle asks.
//!
//! ```text
//!   handle                        driver                                    status
//!   boot, reset ---- request ---> one after the other                ----> state, channel, events
//!   shutdown ------- stop ------> at once: drops what is under way,
//!                                 kills the VMMs, releases everything
//!   execute_tool --- channel of the present state, never by the driver
//! ```
//!
//! Callers only wait for an answer, so dropping one's future changes nothing: what has begun goes on to its end. The task
//! ends with the handle, which kills every VMM.

mod boot;
mod reset;
mod serving;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::calls::Calls;
use super::reset_target::{Failure, ResetTarget};
use super::spares::Next;
use super::status::Status;
use super::supply::Supply;
use super::{Error, Event, Reset, ResetReason, SandboxConfig, SandboxState, Strategy, span};
use crate::causes::Causes;
use crate::golden::LoadedGolden;
use crate::machine::{Machine, VmmSource};
use crate::offload::blocking;
use serving::{Noticed, Serving};

pub(super) use boot::check_kvm;

/// What a sandbox is made of, apart from what it holds at the moment.
pub(super) struct Settings {
    pub(super) config: SandboxConfig,
    pub(super) source: VmmSource,
    /// Whether a boot looks for KVM before it starts anything.
    pub(super) needs_kvm: bool,
    /// What is there before the first boot and is shared.
    pub(super) given: Option<Given>,
}

/// What a sandbox is given of its golden snapshot.
pub(super) enum Given {
    /// It was loaded.
    Golden(Arc<LoadedGolden>),
    /// Its pool has spares, too.
    Supply(Arc<Supply>),
}

/// What the handle asks for.
pub(super) struct Request {
    pub(super) what: Asked,
    /// How many shutdowns had been asked for by then. A later one ends this, too.
    pub(super) stops: u64,
}

pub(super) enum Asked {
    Boot(oneshot::Sender<Result<(), Error>>),
    Reset(oneshot::Sender<Result<Reset, Error>>),
}

/// Shutdowns: how many were asked for, and up to which they are done.
#[derive(Clone, Debug, Default)]
pub(super) struct Stops {
    asked: Arc<watch::Sender<u64>>,
    done: Arc<watch::Sender<u64>>,
}

impl Stops {
    pub(super) fn asked(&self) -> u64 {
        *self.asked.borrow()
    }

    /// Asks for a shutdown, and waits until everything is released. It goes on if this is dropped.
    pub(super) async fn stop(&self) {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        let mut done = self.done.subscribe();
        // This holds the sender.
        let _ = done.wait_for(|done| *done >= number).await;
    }

    /// Waits until a shutdown is asked for that isn't done.
    async fn next(&self) -> u64 {
        let done = *self.done.borrow();
        let mut asked = self.asked.subscribe();
        let asked = asked.wait_for(|asked| *asked > done).await;
        *asked.expect("this holds the sender")
    }
}

/// The task's own.
pub(super) struct Driver {
    settings: Arc<Settings>,
    status: Arc<Status>,
    calls: Calls,
    /// Absent before the first boot and in scaffold mode.
    supply: Option<Arc<Supply>>,
    serving: Option<Serving>,
    /// Machines whose VMM was killed by the call that is under way, and whose rest is still there.
    killed: Vec<Serving>,
    /// What ends machines that are no longer wanted, and removes the rest of those whose VMM has ended.
    retired: JoinSet<()>,
}

impl Driver {
    pub(super) fn new(settings: Arc<Settings>, status: Arc<Status>, calls: Calls) -> Self {
        Driver {
            settings,
            status,
            calls,
            supply: None,
            serving: None,
            killed: Vec::new(),
            retired: JoinSet::new(),
        }
    }

    /// Does what is asked, until the handle is gone.
    pub(super) async fn run(mut self, requests: &mut mpsc::Receiver<Request>, stops: Stops) {
        loop {
            let request = tokio::select! {
                biased;
                number = stops.next() => {
                    self.stop().await;
                    stops.done.send_replace(number);
                    continue;
                }
                request = requests.recv() => match request {
                    Some(request) => request,
                    None => return,
                },
                noticed = notice(&mut self.serving) => {
                    self.react(noticed);
                    continue;
                }
            };
            let is_stopped = request.stops < stops.asked();
            match request.what {
                Asked::Boot(reply) => {
                    let boot = unless_stopped(is_stopped, &stops, self.boot());
                    answer(reply, boot).await;
                }
                Asked::Reset(reply) => {
                    let span = span::reset();
                    let reset = async {
                        let reset = self.reset().instrument(span.clone());
                        let result = unless_stopped(is_stopped, &stops, reset).await;
                        span::record(&span, &result);
                        result
                    };
                    answer(reply, reset).await;
                }
            }
            self.remove_killed();
        }
    }

    /// Removes what killed VMMs left, in the background.
    fn remove_killed(&mut self) {
        for serving in self.killed.drain(..) {
            self.retired.spawn(blocking(move || drop(serving)));
        }
    }

    fn strategy(&self) -> Strategy {
        self.settings.config.strategy_on(&self.settings.source)
    }

    fn react(&mut self, noticed: Noticed) {
        let serving = self.serving.as_ref();
        let channel = serving.and_then(|serving| serving.machine.channel());
        let channel = channel.map_or(0, |channel| channel.origin().channel);
        match noticed {
            Noticed::Event(event) => self.status.tell(event),
            Noticed::ChannelClosed(event) => {
                let channel = event.origin.channel;
                let reason = ResetReason::ChannelBroken;
                let cause = Event::Channel(event);
                self.status.demand_reset(channel, reason, Some(cause));
            }
            Noticed::Ended(ended) => self.status.vmm_ended(ended),
            Noticed::HoldLost => {
                let reason = ResetReason::GoldenTouched;
                tracing::warn!("{reason}");
                self.status
                    .demand_reset(channel, reason, Some(Event::HoldLost));
            }
        }
    }

    /// Starts a machine. A shutdown that comes meanwhile waits for it and ends it.
    async fn start_machine(
        &mut self,
        start: impl Future<Output = Result<Machine, Failure>> + Send + 'static,
    ) -> Result<Machine, Failure> {
        let (mut reply, started) = oneshot::channel();
        let start = async move { start.await.map(Next::new) };
        self.retired.spawn(async move {
            let mut start = Box::pin(start);
            tokio::select! {
                started = &mut start => {
                    if let Err(Ok(next)) = reply.send(started) {
                        next.end().await;
                    }
                }
                () = reply.closed() => Next::end_start(start).await,
            }
        });
        match started.await {
            Ok(started) => started.map(|next| next.machine),
            // The task is gone with the runtime, as this one will be.
            Err(_) => std::future::pending().await,
        }
    }

    fn target(&self) -> Option<Arc<ResetTarget>> {
        let supply = self.supply.as_ref()?;
        Some(Arc::clone(&supply.target))
    }

    /// Stops the spares, unless they are a pool's.
    async fn stop_spares(&mut self) {
        if let Some(supply) = &self.supply
            && !matches!(self.settings.given, Some(Given::Supply(_)))
        {
            supply.stop().await;
        }
    }

    /// Releases everything.
    async fn stop(&mut self) {
        if let SandboxState::NotBooted = self.status.state() {
            return;
        }
        self.status.end_tools(Error::ShutDown);
        self.release().await;
        self.status.set(SandboxState::NotBooted);
    }

    /// Kills the VMMs, removes what they left, and lets the golden snapshot go. The VM in a VMM that another program runs is
    /// deleted. What a caller that was interrupted has not released is released by the next one.
    async fn release(&mut self) {
        self.stop_spares().await;
        if let Some(serving) = &mut self.serving {
            match serving.machine.vmm().process() {
                Some(_) => {
                    if let Err(error) = serving.machine.kill().await {
                        tracing::error!(error = %Causes(&error), "the VMM could not be killed");
                    }
                }
                None => serving.machine.vacate().await,
            }
            serving.tell_pending(&self.status);
        }
        self.killed.extend(self.serving.take());
        self.remove_killed();
        while let Some(removed) = self.retired.join_next().await {
            if let Err(error) = removed {
                tracing::error!(error = %Causes(&error), "what a VMM left was not removed");
            }
        }
        self.supply = None;
    }
}

impl Drop for Driver {
    /// The handle is gone, or the runtime: the machines that are dropped kill their VMMs.
    fn drop(&mut self) {
        (self.supply, self.serving) = (None, None);
        self.killed.clear();
        self.status.set(SandboxState::NotBooted);
    }
}

async fn notice(serving: &mut Option<Serving>) -> Noticed {
    match serving {
        Some(serving) => serving.notice().await,
        None => std::future::pending().await,
    }
}

/// Gives up the work as soon as a shutdown is asked for.
async fn unless_stopped<T>(
    is_stopped: bool,
    stops: &Stops,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    if is_stopped {
        return Err(Error::ShutDown);
    }
    tokio::select! {
        biased;
        _ = stops.next() => Err(Error::ShutDown),
        result = work => result,
    }
}

/// Does the work for its caller. Work whose caller is gone before it begins is not begun.
async fn answer<T>(reply: oneshot::Sender<T>, work: impl Future<Output = T>) {
    if !reply.is_closed() {
        // A caller that is gone by now needs no answer.
        let _ = reply.send(work.await);
    }
}
