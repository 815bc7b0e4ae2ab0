//! [`ServingMachine`]: the machine that serves a sandbox, with what its driver listens to: events of the VMM and of the
//! channel, the VMM's end, and the loss of the hold on a golden disk.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use crate::broadcast::{Receiver, RecvError, TryRecvError};
use crate::client::MonitorEvent;
use crate::golden::HeldDisks;
use crate::machine::Machine;
use crate::sandbox::reset_target::ResetTarget;
use crate::sandbox::status::Status;
use crate::sandbox::{Event, VmmUsed};
use crate::vmm::Ended;
use crate::vsock::{Channel, ChannelEvent, ChannelEventKind};

/// A machine that serves, or that is being reverted to serve.
pub(super) struct ServingMachine {
    pub(super) machine: Machine,
    pub(super) used: VmmUsed,
    vmm_events: Option<Receiver<MonitorEvent>>,
    channel_events: Option<Receiver<ChannelEvent>>,
    /// Resolves once the VMM has ended. `None` after it has resolved.
    ended: Option<Pin<Box<dyn Future<Output = Ended> + Send>>>,
    /// Resolves once a golden disk that the VM reads isn't held any more. `None` if no disk is held.
    lost: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Something that happened to the machine that serves.
pub(super) enum MachineEvent {
    /// An event that the subscribers get and that doesn't change the state.
    Event(Event),
    /// The channel was closed.
    ChannelClosed(ChannelEvent),
    /// The VMM has ended.
    Ended(Ended),
    /// A golden disk that the VM reads isn't held any more.
    HoldLost,
}

impl ServingMachine {
    pub(super) fn new(machine: Machine, used: VmmUsed) -> Self {
        ServingMachine {
            vmm_events: Some(machine.vmm().events()),
            channel_events: None,
            ended: Some(Box::pin(machine.vmm().ended())),
            lost: None,
            machine,
            used,
        }
    }

    /// Notes that the same VMM serves with another VM.
    pub(super) fn used_again(&mut self) -> VmmUsed {
        if self.used != VmmUsed::Attached {
            self.used = VmmUsed::Reused;
        }
        self.used
    }

    /// Whether the end of the VMM was noticed.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_none()
    }

    /// From now on [`notice`](Self::notice) returns [`MachineEvent::HoldLost`] when one of the disks of `held` isn't
    /// held any more.
    pub(super) fn watch_disks(&mut self, target: &Arc<ResetTarget>, held: Option<HeldDisks>) {
        let target = Arc::clone(target);
        self.lost = held.map(|held| Box::pin(target.lost(held)) as _);
    }

    /// Listens to the machine's present channel, and reports the events that it has had so far. They have to reach the
    /// subscribers before the state that follows from them.
    pub(super) fn listen(&mut self, status: &Status) {
        self.emit_pending(status);
        self.channel_events = self.machine.channel().map(Channel::events);
        self.emit_pending(status);
    }

    /// Reports the events that have happened and were not reported yet.
    pub(super) fn emit_pending(&mut self, status: &Status) {
        tell_all(&mut self.vmm_events, "vmm", Event::Vmm, status);
        tell_all(&mut self.channel_events, "channel", Event::Channel, status);
    }

    /// Waits for the next thing that happens. If the future is dropped, nothing is lost.
    pub(super) async fn notice(&mut self) -> MachineEvent {
        tokio::select! {
            biased;
            event = receive(&mut self.vmm_events, "vmm", Event::Vmm) => MachineEvent::Event(event),
            event = receive(&mut self.channel_events, "channel", Event::Channel) => match event {
                Event::Channel(event) if matches!(event.kind, ChannelEventKind::Closed(_)) => {
                    MachineEvent::ChannelClosed(event)
                }
                event => MachineEvent::Event(event),
            },
            ended = resolved(&mut self.ended) => MachineEvent::Ended(ended),
            () = resolved(&mut self.lost) => MachineEvent::HoldLost,
        }
    }
}

/// The next event of the stream, or [`Event::Lost`]. Never resolves once the stream has ended.
async fn receive<T: Clone>(
    events: &mut Option<Receiver<T>>,
    source: &'static str,
    event: impl FnOnce(T) -> Event,
) -> Event {
    let Some(receiver) = events else {
        return pending().await;
    };
    match receiver.recv().await {
        Ok(received) => event(received),
        Err(RecvError::Lagged(count)) => Event::Lost { source, count },
        Err(RecvError::Closed) => {
            *events = None;
            pending().await
        }
    }
}

fn tell_all<T: Clone>(
    events: &mut Option<Receiver<T>>,
    source: &'static str,
    event: impl Fn(T) -> Event,
    status: &Status,
) {
    while let Some(receiver) = events {
        match receiver.try_recv() {
            Ok(received) => status.emit(event(received)),
            Err(TryRecvError::Lagged(count)) => status.emit(Event::Lost { source, count }),
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
}

/// Waits for the future and removes it once it has resolved. Never resolves if there is none.
async fn resolved<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    let Some(waiting) = future else {
        return pending().await;
    };
    let resolved = waiting.await;
    *future = None;
    resolved
}
