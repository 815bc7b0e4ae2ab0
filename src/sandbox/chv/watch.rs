//! What a sandbox notices by itself: the VMM's events and its end, and what the guest says unasked.

use std::sync::{Arc, Weak};

use tokio::task::AbortHandle;

use super::Shared;
use super::reset_target::ResetTarget;
use crate::broadcast::{RecvError, TryRecvError};
use crate::golden::HeldDisks;
use crate::machine::Machine;
use crate::sandbox::Event;
use crate::vsock::Channel;

/// A task that watches a VMM. It ends with this.
pub(super) struct Watcher(pub(super) AbortHandle);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Shared {
    /// Watches the VMM until it ends. Its end, unless it was asked for, fails the sandbox at once and not at
    /// the next call.
    pub(super) fn watch(self: &Arc<Self>, machine: &Machine) -> Watcher {
        let shared = Arc::downgrade(self);
        let vmm = self.status.vmm();
        let mut events = machine.vmm().events();
        let ended = machine.vmm().ended();
        let watcher = tokio::spawn(async move {
            let forwarded = Weak::clone(&shared);
            let forward = async move {
                loop {
                    match events.recv().await {
                        Ok(event) => tell(&forwarded, Event::Vmm(event)),
                        Err(RecvError::Lagged(count)) => {
                            tell(
                                &forwarded,
                                Event::Lost {
                                    source: "vmm",
                                    count,
                                },
                            );
                        }
                        // The end itself is another matter than the end of the events.
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            let ended = tokio::select! {
                ended = ended => ended,
                () = forward => unreachable!("forwarding never ends"),
            };
            if let Some(shared) = shared.upgrade()
                && shared.status.vmm_ended(vmm)
            {
                tracing::error!(%ended, "the VMM ended by itself");
                shared.status.tell(Event::VmmEnded(ended));
            }
        });
        Watcher(watcher.abort_handle())
    }

    /// Watches the disks that the VM goes on to read, from the moment at which they were held as `disks` says. If another
    /// process gets at one of them, what the guest sees isn't proved any more: no tool is taken then until a reset.
    pub(super) fn watch_golden(&self, target: &Arc<ResetTarget>, disks: HeldDisks) -> Watcher {
        let status = Arc::clone(&self.status);
        let target = Arc::clone(target);
        let generation = status.generation();
        let watcher = tokio::spawn(async move {
            target.lost(&disks).await;
            tracing::warn!("a disk of the golden snapshot that the VM reads was not left alone");
            status.demand_reset(
                generation,
                "a disk of the golden snapshot that the VM reads was not left alone",
            );
            status.tell(Event::HoldLost);
        });
        Watcher(watcher.abort_handle())
    }

    /// Passes on what has happened on a new channel, and what happens until it closes.
    pub(super) fn watch_channel(self: &Arc<Self>, channel: &Channel) {
        let shared = Arc::downgrade(self);
        let mut events = channel.events();
        // Told before whatever comes of it: that the sandbox is ready, or that it halts.
        loop {
            match events.try_recv() {
                Ok(event) => self.status.tell(Event::Channel(event)),
                Err(TryRecvError::Lagged(count)) => self.status.tell(lost(count)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) => tell(&shared, Event::Channel(event)),
                    Err(RecvError::Lagged(count)) => tell(&shared, lost(count)),
                    Err(RecvError::Closed) => break,
                }
            }
        });
    }
}

/// So many events of a channel.
fn lost(count: u64) -> Event {
    Event::Lost {
        source: "channel",
        count,
    }
}

fn tell(shared: &Weak<Shared>, event: Event) {
    if let Some(shared) = shared.upgrade() {
        shared.status.tell(event);
    }
}
