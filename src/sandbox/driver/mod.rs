//! [`Driver`]: the one task that owns a sandbox's machine and carries out what the sandbox's handle asks.
//!
//! ```text
//!   handle                              driver                                   status
//!   boot, reset --- Request (a queue)-> one after the other               ----> state, channel, events
//!   shutdown ------ Stops ------------> at once: drops the work under way,
//!                                       kills the VMMs, releases everything
//!   execute_tool, start, push, pull ---------------------------------- read --> the channel
//! ```
//!
//! Tools and transfers take the channel from the [`Status`] and never wait for the driver. The callers of `boot` and
//! `reset` only wait for an answer: if such a caller drops its future, work that has begun goes on to its end. The task
//! ends when the handle is dropped, which kills every VMM.

mod boot;
mod reset;
mod serving_machine;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::call_activity::CallActivity;
use super::reset_target::{ResetTarget, RevertFailure};
use super::shared_target::SharedTarget;
use super::spares::PreparedMachine;
use super::status::Status;
use super::{Error, Event, Reset, ResetReason, SandboxConfig, SandboxState, Strategy, span};
use crate::causes::Causes;
use crate::golden::LoadedGolden;
use crate::machine::{Machine, VmmSource};
use crate::offload::blocking;
use serving_machine::{MachineEvent, ServingMachine};

pub(super) use boot::check_kvm;

/// The settings of a sandbox. They don't change after it was created.
pub(super) struct Settings {
    pub(super) config: SandboxConfig,
    pub(super) source: VmmSource,
    /// Whether a boot checks for KVM before it starts anything.
    pub(super) needs_kvm: bool,
    /// What the sandbox shares with others and was loaded before its first boot.
    pub(super) shared: Option<SharedParts>,
}

/// What a sandbox shares with other sandboxes.
pub(super) enum SharedParts {
    /// A golden snapshot that the caller has loaded.
    Golden(Arc<LoadedGolden>),
    /// The reset target and the spares of the sandbox's pool.
    Target(Arc<SharedTarget>),
}

/// A request of the handle.
pub(super) struct Request {
    pub(super) what: Call,
    /// How many shutdowns had been asked for when the request was made. A shutdown that was asked for later ends the
    /// request.
    pub(super) stops: u64,
}

/// The call that is requested, with the sender of its answer.
pub(super) enum Call {
    Boot(oneshot::Sender<Result<(), Error>>),
    Reset(oneshot::Sender<Result<Reset, Error>>),
}

/// Counts the shutdowns that were asked for, and those that are done.
#[derive(Clone, Debug, Default)]
pub(super) struct Shutdowns {
    asked: Arc<watch::Sender<u64>>,
    done: Arc<watch::Sender<u64>>,
}

impl Shutdowns {
    pub(super) fn asked(&self) -> u64 {
        *self.asked.borrow()
    }

    /// Asks for a shutdown, and waits until everything is released. If the future is dropped, the shutdown goes on.
    pub(super) async fn stop(&self) {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        let mut done = self.done.subscribe();
        // No error can come: `self` holds the sender.
        let _ = done.wait_for(|done| *done >= number).await;
    }

    /// Waits until a shutdown was asked for that isn't done yet. Returns the number of the last one.
    async fn next(&self) -> u64 {
        let done = *self.done.borrow();
        let mut asked = self.asked.subscribe();
        let asked = asked.wait_for(|asked| *asked > done).await;
        *asked.expect("`self` holds the sender")
    }
}

/// The state of the driver task.
pub(super) struct Driver {
    settings: Arc<Settings>,
    status: Arc<Status>,
    calls: CallActivity,
    /// `None` before the first boot and in scaffold mode.
    shared_target: Option<Arc<SharedTarget>>,
    /// The machine that serves. `None` before a boot, and after a reset that failed.
    serving: Option<ServingMachine>,
    /// Machines whose VMM was killed during the present call. Their files are removed after the call was answered.
    killed: Vec<ServingMachine>,
    /// Background tasks: those that start machines, kill machines that are no longer wanted, and remove the files of
    /// machines whose VMM has ended.
    retired: JoinSet<()>,
}

impl Driver {
    pub(super) fn new(settings: Arc<Settings>, status: Arc<Status>, calls: CallActivity) -> Self {
        Driver {
            settings,
            status,
            calls,
            shared_target: None,
            serving: None,
            killed: Vec::new(),
            retired: JoinSet::new(),
        }
    }

    /// Carries out requests until the handle is dropped.
    pub(super) async fn run(mut self, requests: &mut mpsc::Receiver<Request>, stops: Shutdowns) {
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
                Call::Boot(reply) => {
                    let boot = unless_stopped(is_stopped, &stops, self.boot());
                    answer(reply, boot).await;
                }
                Call::Reset(reply) => {
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

    /// Removes the files of killed VMMs in the background.
    fn remove_killed(&mut self) {
        for serving in self.killed.drain(..) {
            self.retired.spawn(blocking(move || drop(serving)));
        }
    }

    fn strategy(&self) -> Strategy {
        self.settings.config.strategy_on(&self.settings.source)
    }

    fn react(&mut self, noticed: MachineEvent) {
        let serving = self.serving.as_ref();
        let channel = serving.and_then(|serving| serving.machine.channel());
        let channel = channel.map_or(0, |channel| channel.origin().channel);
        match noticed {
            MachineEvent::Event(event) => self.status.emit(event),
            MachineEvent::ChannelClosed(event) => {
                let channel = event.origin.channel;
                let reason = ResetReason::ChannelBroken;
                let cause = Event::Channel(event);
                self.status.require_reset(channel, reason, Some(cause));
            }
            MachineEvent::Ended(ended) => self.status.vmm_ended(ended),
            MachineEvent::HoldLost => {
                let reason = ResetReason::GoldenTouched;
                tracing::warn!("{reason}");
                self.status
                    .require_reset(channel, reason, Some(Event::GoldenChanged));
            }
        }
    }

    /// Starts a machine in a background task. If a shutdown interrupts this call, that task goes on and ends the
    /// machine, and the shutdown waits for the task.
    async fn start_machine(
        &mut self,
        start: impl Future<Output = Result<Machine, RevertFailure>> + Send + 'static,
    ) -> Result<Machine, RevertFailure> {
        let (mut reply, started) = oneshot::channel();
        let start = async move { start.await.map(PreparedMachine::new) };
        self.retired.spawn(async move {
            let mut start = Box::pin(start);
            tokio::select! {
                started = &mut start => {
                    if let Err(Ok(next)) = reply.send(started) {
                        next.end().await;
                    }
                }
                () = reply.closed() => PreparedMachine::end_start(start).await,
            }
        });
        match started.await {
            Ok(started) => started.map(|next| next.machine),
            // The background task was aborted because the runtime shuts down, which ends this task too.
            Err(_) => std::future::pending().await,
        }
    }

    fn target(&self) -> Option<Arc<ResetTarget>> {
        let shared_target = self.shared_target.as_ref()?;
        Some(Arc::clone(&shared_target.target))
    }

    /// Stops the spares, unless they are a pool's.
    async fn stop_spares(&mut self) {
        if let Some(shared_target) = &self.shared_target
            && !matches!(self.settings.shared, Some(SharedParts::Target(_)))
        {
            shared_target.stop().await;
        }
    }

    /// Carries out a shutdown: ends the tools, releases everything, and sets the state `NotBooted`.
    async fn stop(&mut self) {
        if let SandboxState::NotBooted = self.status.state() {
            return;
        }
        self.status.end_tools(Error::ShutDown);
        self.release().await;
        self.status.set(SandboxState::NotBooted);
    }

    /// Kills the VMMs, removes their files, and drops the golden snapshot. In a VMM that another program runs, the VM
    /// is deleted. If a caller is interrupted, the next call of `release` continues where it stopped.
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
            serving.emit_pending(&self.status);
        }
        self.killed.extend(self.serving.take());
        self.remove_killed();
        while let Some(removed) = self.retired.join_next().await {
            if let Err(error) = removed {
                tracing::error!(error = %Causes(&error), "the files of a VMM that has ended were not removed");
            }
        }
        self.shared_target = None;
    }
}

impl Drop for Driver {
    /// Runs when the handle is dropped or the runtime shuts down. The machines that are dropped here kill their VMMs.
    fn drop(&mut self) {
        (self.shared_target, self.serving) = (None, None);
        self.killed.clear();
        self.status.set(SandboxState::NotBooted);
    }
}

async fn notice(serving: &mut Option<ServingMachine>) -> MachineEvent {
    match serving {
        Some(serving) => serving.notice().await,
        None => std::future::pending().await,
    }
}

/// Awaits `work`, and drops it as soon as a shutdown is asked for.
async fn unless_stopped<T>(
    is_stopped: bool,
    stops: &Shutdowns,
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

/// Awaits `work` and sends its result to the caller. If the caller has dropped its future already, the work is not
/// begun.
async fn answer<T>(reply: oneshot::Sender<T>, work: impl Future<Output = T>) {
    if !reply.is_closed() {
        // A caller that stopped waiting during the work needs no answer.
        let _ = reply.send(work.await);
    }
}
