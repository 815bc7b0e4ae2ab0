//! The machine that serves a sandbox, and what its driver notices of it: events of its VMM and of its guest, the VMM's
//! end, and the loss of a disk's hold.

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

/// A machine that serves, or is about to.
pub(super) struct Serving {
    pub(super) machine: Machine,
    pub(super) used: VmmUsed,
    vmm_events: Option<Receiver<MonitorEvent>>,
    channel_events: Option<Receiver<ChannelEvent>>,
    ended: Option<Pin<Box<dyn Future<Output = Ended> + Send>>>,
    /// Resolves once a disk that the VM reads isn't held any more.
    lost: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Something that concerns the state of the sandbox.
pub(super) enum Noticed {
    /// An event, for the subscribers alone.
    Event(Event),
    /// The channel has closed.
    ChannelClosed(ChannelEvent),
    /// The VMM has ended.
    Ended(Ended),
    /// A disk that the VM reads isn't held any more.
    HoldLost,
}

impl Serving {
    pub(super) fn new(machine: Machine, used: VmmUsed) -> Self {
        Serving {
            vmm_events: Some(machine.vmm().events()),
            channel_events: None,
            ended: Some(Box::pin(machine.vmm().ended())),
            lost: None,
            machine,
            used,
        }
    }

    /// The same VMM is used for another VM.
    pub(super) fn used_again(&mut self) -> VmmUsed {
        if self.used != VmmUsed::Attached {
            self.used = VmmUsed::Reused;
        }
        self.used
    }

    /// Whether the VMM has ended by itself, or was given up.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_none()
    }

    /// From now on the loss of the disks that are held as `held` says is noticed.
    pub(super) fn watch_disks(&mut self, target: &Arc<ResetTarget>, held: Option<HeldDisks>) {
        let target = Arc::clone(target);
        self.lost = held.map(|held| Box::pin(target.lost(held)) as _);
    }

    /// Listens to the machine's channel, and tells what has happened on it so far: before whatever comes of it.
    pub(super) fn listen(&mut self, status: &Status) {
        self.tell_pending(status);
        self.channel_events = self.machine.channel().map(Channel::events);
        self.tell_pending(status);
    }

    /// Tells what has happened and wasn't told yet.
    pub(super) fn tell_pending(&mut self, status: &Status) {
        tell_all(&mut self.vmm_events, "vmm", Event::Vmm, status);
        tell_all(&mut self.channel_events, "channel", Event::Channel, status);
    }

    /// Waits for the next thing to notice. Nothing is lost if it is dropped.
    pub(super) async fn notice(&mut self) -> Noticed {
        tokio::select! {
            biased;
            event = receive(&mut self.vmm_events, "vmm", Event::Vmm) => Noticed::Event(event),
            event = receive(&mut self.channel_events, "channel", Event::Channel) => match event {
                Event::Channel(event) if matches!(event.kind, ChannelEventKind::Closed(_)) => {
                    Noticed::ChannelClosed(event)
                }
                event => Noticed::Event(event),
            },
            ended = resolved(&mut self.ended) => Noticed::Ended(ended),
            () = resolved(&mut self.lost) => Noticed::HoldLost,
        }
    }
}

/// The next event of a stream that hasn't ended, or how many were lost.
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
            Ok(received) => status.tell(event(received)),
            Err(TryRecvError::Lagged(count)) => status.tell(Event::Lost { source, count }),
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
}

/// Waits for a future that is asked once.
async fn resolved<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    let Some(waiting) = future else {
        return pending().await;
    };
    let resolved = waiting.await;
    *future = None;
    resolved
}
