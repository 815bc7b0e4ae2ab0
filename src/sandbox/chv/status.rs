//! Where a sandbox stands, for those who may not wait for the machine: tools, listeners, the watcher.

use std::sync::{Mutex, MutexGuard};

use crate::broadcast::{self, Capacity};
use crate::sandbox::evidence::Journal;
use crate::sandbox::{Error, Event, SandboxState};
use crate::vsock::Channel;

/// The state, the tools' channel, and the listeners.
pub(super) struct Status {
    inner: Mutex<Inner>,
    events: broadcast::Sender<Event>,
    /// What was told last, for the evidence.
    journal: Mutex<Journal>,
}

struct Inner {
    state: SandboxState,
    /// Set for good by a divergence or a silence, until the next shutdown.
    halted: bool,
    /// Counts the VMMs, so that the end of an earlier one can't be taken for the end of the present one.
    vmm: u64,
    /// The VMM has ended by itself, so nothing can become ready before the next boot.
    vmm_ended: bool,
    /// Why no tool is taken although the sandbox is ready.
    needs_reset: Option<&'static str>,
    channel: Option<Channel>,
    /// Counts the channels, so that a tool of an earlier one can't say anything of the present one.
    generation: u64,
}

impl Status {
    pub(super) fn new(events: Capacity) -> Self {
        Status {
            inner: Mutex::new(Inner {
                state: SandboxState::NotBooted,
                halted: false,
                vmm: 0,
                vmm_ended: false,
                needs_reset: None,
                channel: None,
                generation: 0,
            }),
            events: broadcast::Sender::new(events),
            journal: Mutex::default(),
        }
    }

    /// Nothing that holds this lock can leave it half-changed, so a panic elsewhere doesn't matter.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The last events, a line each.
    pub(super) fn journal(&self) -> String {
        let journal = self.journal.lock();
        journal
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .to_string()
    }

    pub(super) fn tell(&self, event: Event) {
        let journal = self.journal.lock();
        journal
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .note(&event);
        self.events.send(event);
    }

    pub(super) fn state(&self) -> SandboxState {
        self.lock().state
    }

    pub(super) fn is_halted(&self) -> bool {
        self.lock().halted
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        let before = inner.state;
        change(&mut inner);
        let after = inner.state;
        drop(inner);
        if before != after {
            tracing::debug!(%before, %after, "the sandbox's state changed");
            self.tell(Event::State(after));
        }
    }

    /// The sandbox is booting or resetting: what is in flight ends, and no tool is taken.
    pub(super) fn begin(&self, state: SandboxState) {
        self.close_channel();
        self.change(|inner| {
            inner.state = state;
            if state == SandboxState::Booting {
                inner.forget_vmm();
            }
        });
    }

    /// Another VMM serves from now on.
    pub(super) fn next_vmm(&self) {
        self.lock().forget_vmm();
    }

    /// Names the present VMM, for [`vmm_ended`](Self::vmm_ended).
    pub(super) fn vmm(&self) -> u64 {
        self.lock().vmm
    }

    /// The VMM of this name has ended by itself. Whether that means anything: an earlier one's end doesn't.
    pub(super) fn vmm_ended(&self, vmm: u64) -> bool {
        let mut channel = None;
        let mut present = false;
        self.change(|inner| {
            present = inner.vmm == vmm;
            if present {
                inner.vmm_ended = true;
                inner.state = SandboxState::Failed;
                channel = inner.channel.take();
            }
        });
        if let Some(channel) = channel {
            channel.close();
        }
        present
    }

    /// The sandbox is ready, and tools go to `channel`.
    pub(super) fn ready(&self, channel: Channel) {
        self.change(|inner| {
            if inner.vmm_ended {
                inner.state = SandboxState::Failed;
                return;
            }
            inner.state = SandboxState::Ready;
            inner.needs_reset = None;
            inner.channel = Some(channel);
            inner.generation += 1;
        });
    }

    pub(super) fn failed(&self) {
        self.close_channel();
        self.change(|inner| inner.state = SandboxState::Failed);
    }

    pub(super) fn halt(&self) {
        self.close_channel();
        self.change(|inner| {
            inner.state = SandboxState::Failed;
            inner.halted = true;
        });
    }

    /// Everything was released.
    pub(super) fn rest(&self) {
        self.change(|inner| {
            inner.forget_vmm();
            inner.state = SandboxState::NotBooted;
            inner.halted = false;
            inner.needs_reset = None;
        });
    }

    pub(super) fn close_channel(&self) {
        if let Some(channel) = self.lock().channel.take() {
            channel.close();
        }
    }

    pub(super) fn not_ready(&self, action: &'static str) -> Error {
        let inner = self.lock();
        Error::NotReady {
            action,
            state: inner.state,
            halted: inner.halted,
        }
    }

    /// Counts the channels on which tools have run.
    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// No tool is taken on the channel of `generation` from now on.
    pub(super) fn demand_reset(&self, generation: u64, reason: &'static str) {
        let mut inner = self.lock();
        // A reset since then has met the demand.
        if inner.generation == generation {
            inner.needs_reset = Some(reason);
        }
    }

    /// The channel on which a tool may run, with its generation.
    pub(super) fn channel_for_tool(&self) -> Result<(Channel, u64), Error> {
        let inner = self.lock();
        let channel = match (inner.state, &inner.channel) {
            (SandboxState::Ready, Some(channel)) => channel,
            _ => {
                drop(inner);
                return Err(self.not_ready("run a tool"));
            }
        };
        match inner.needs_reset {
            Some(reason) => Err(Error::NeedsReset { reason }),
            None if channel.is_poisoned() => Err(Error::NeedsReset {
                reason: "the channel to the guest broke",
            }),
            None => Ok((channel.clone(), inner.generation)),
        }
    }

    /// A tool runs on the channel of `generation`. If nobody waits for its end any more, who knows what it still
    /// does: the sandbox takes no other tool until it is reset.
    pub(super) fn tool_in_flight(&self, generation: u64) -> ToolInFlight<'_> {
        ToolInFlight {
            status: self,
            generation,
            reason: Some("the caller of a tool went away before it had ended"),
        }
    }

    /// Until [`finished`](Abandoned::finished) is called on it, its end means that the sandbox has failed.
    pub(super) fn fail_unless_finished(&self) -> Abandoned<'_> {
        Abandoned { status: Some(self) }
    }
}

/// A tool that runs. Its end, unless it [has ended](Self::has_ended), means that the sandbox needs a reset.
pub(super) struct ToolInFlight<'a> {
    status: &'a Status,
    generation: u64,
    reason: Option<&'static str>,
}

impl ToolInFlight<'_> {
    /// Nothing of it runs any more, or it never ran.
    pub(super) fn has_ended(mut self) {
        self.reason = None;
    }

    /// What it did isn't known.
    pub(super) fn needs_reset(mut self, reason: &'static str) {
        self.reason = Some(reason);
    }
}

impl Drop for ToolInFlight<'_> {
    fn drop(&mut self) {
        // A reset since then has ended it.
        if let Some(reason) = self.reason {
            self.status.demand_reset(self.generation, reason);
        }
    }
}

impl Inner {
    /// Whatever is still said of the present VMM is said of an earlier one.
    fn forget_vmm(&mut self) {
        self.vmm += 1;
        self.vmm_ended = false;
    }
}

/// Fails the sandbox when a boot or a reset is dropped half-way.
pub(super) struct Abandoned<'a> {
    status: Option<&'a Status>,
}

impl Abandoned<'_> {
    pub(super) fn finished(mut self) {
        self.status = None;
    }
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(status) = self.status {
            status.failed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: Capacity = Capacity {
        count: 8,
        bytes: 1 << 20,
    };

    #[test]
    fn only_the_end_of_the_present_vmm_counts() {
        let status = Status::new(EVENTS);
        status.begin(SandboxState::Booting);
        let first = status.vmm();
        status.begin(SandboxState::Resetting);
        assert_eq!(status.vmm(), first, "a reset keeps its VMM");

        status.begin(SandboxState::Booting);
        assert!(!status.vmm_ended(first));
        assert_eq!(status.state(), SandboxState::Booting);

        let second = status.vmm();
        assert!(status.vmm_ended(second));
        assert_eq!(status.state(), SandboxState::Failed);

        status.next_vmm();
        assert!(!status.vmm_ended(second), "it was replaced");

        let third = status.vmm();
        status.rest();
        assert!(!status.vmm_ended(third), "it was shut down");
        assert_eq!(status.state(), SandboxState::NotBooted);
    }

    #[test]
    fn what_is_dropped_half_way_has_failed() {
        let status = Status::new(EVENTS);
        let finished = status.fail_unless_finished();
        finished.finished();
        assert_eq!(status.state(), SandboxState::NotBooted);
        drop(status.fail_unless_finished());
        assert_eq!(status.state(), SandboxState::Failed);
    }
}
