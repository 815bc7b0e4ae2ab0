//! Where a sandbox stands, for those that don't wait for its driver: tools, subscribers, `state()`.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::evidence::Journal;
use super::{Error, Event, ResetReason, SandboxState};
use crate::broadcast::{self, Capacity};
use crate::causes::Causes;
use crate::vsock::Channel;

/// How far a subscriber may fall behind.
const EVENTS: Capacity = Capacity {
    count: 256,
    bytes: 8 << 20,
};

/// The state with the tools' channel, and the subscribers. The driver writes it; a tool may only demand a reset.
#[derive(Debug)]
pub(super) struct Status {
    standing: watch::Sender<Standing>,
    events: broadcast::Sender<Event>,
    /// What was told last, for the evidence.
    journal: Mutex<Journal>,
}

#[derive(Debug)]
struct Standing {
    state: SandboxState,
    /// Where tools go: there is one in the states `Ready` and `NeedsReset`.
    channel: Option<Channel>,
}

impl Default for Status {
    fn default() -> Self {
        Status {
            standing: watch::Sender::new(Standing {
                state: SandboxState::NotBooted,
                channel: None,
            }),
            events: broadcast::Sender::new(EVENTS),
            journal: Mutex::default(),
        }
    }
}

impl Status {
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    pub(super) fn state(&self) -> SandboxState {
        self.standing.borrow().state.clone()
    }

    /// Tells the subscribers, and notes it for the evidence.
    pub(super) fn tell(&self, event: Event) {
        let journal = self.journal.lock();
        let mut journal = journal.unwrap_or_else(PoisonError::into_inner);
        journal.note(&event);
        self.events.send(event);
    }

    /// The last events, a line each.
    pub(super) fn journal(&self) -> String {
        let journal = self.journal.lock();
        journal.unwrap_or_else(PoisonError::into_inner).to_string()
    }

    /// The sandbox stands at `state` now, and takes no tool. What is in flight ends.
    pub(super) fn set(&self, state: SandboxState) {
        self.change(|standing| {
            if let Some(channel) = standing.channel.take() {
                channel.close();
            }
            Some(state)
        });
    }

    /// Tools go to `channel` from now on.
    pub(super) fn ready(&self, channel: Channel) {
        self.change(|standing| {
            standing.channel = Some(channel);
            Some(SandboxState::Ready)
        });
    }

    /// No tool is taken on the channel of this number from now on, if it is the present one.
    pub(super) fn demand_reset(&self, channel: u64, reason: ResetReason) {
        self.change(|standing| {
            let present = standing.channel.as_ref();
            let is_present = present.is_some_and(|it| it.origin().channel == channel);
            let is_ready = matches!(standing.state, SandboxState::Ready);
            (is_present && is_ready).then_some(SandboxState::NeedsReset { reason })
        });
    }

    /// Changes the state, if `change` says so, and tells of it before anything that follows from it.
    fn change(&self, change: impl FnOnce(&mut Standing) -> Option<SandboxState>) {
        self.standing.send_if_modified(|standing| {
            let Some(state) = change(standing) else {
                return false;
            };
            if let (SandboxState::NotBooted, SandboxState::NotBooted) = (&standing.state, &state) {
                return false;
            }
            let before = std::mem::replace(&mut standing.state, state.clone());
            if let SandboxState::Failed { error } = &state {
                tracing::error!(error = %Causes(error), "the sandbox has failed");
            }
            tracing::debug!(%before, after = %state, "the sandbox's state changed");
            self.tell(Event::State(state));
            true
        });
    }

    pub(super) fn not_ready(&self, action: &'static str) -> Error {
        let standing = self.standing.borrow();
        Error::NotReady {
            action,
            state: standing.state.wire(),
            halted: standing.state.is_halted(),
        }
    }

    /// The channel on which a tool may run.
    pub(super) fn channel_for_tool(&self) -> Result<Channel, Error> {
        let channel = {
            let standing = self.standing.borrow();
            match (&standing.state, &standing.channel) {
                (SandboxState::NeedsReset { reason }, _) => {
                    return Err(Error::NeedsReset { reason: *reason });
                }
                (SandboxState::Ready, Some(channel)) => Some(channel.clone()),
                _ => None,
            }
        };
        let channel = channel.ok_or_else(|| self.not_ready("run a tool"))?;
        if channel.is_poisoned() {
            let reason = ResetReason::ChannelBroken;
            self.demand_reset(channel.origin().channel, reason);
            return Err(Error::NeedsReset { reason });
        }
        Ok(channel)
    }

    /// A tool runs on `channel`.
    pub(super) fn tool_in_flight(&self, channel: &Channel) -> ToolInFlight<'_> {
        ToolInFlight {
            status: self,
            channel: channel.origin().channel,
            reason: Some(ResetReason::CallerGone),
        }
    }
}

/// A tool that runs. Its end, unless it [has ended](Self::has_ended), means that the sandbox needs a reset.
pub(super) struct ToolInFlight<'a> {
    status: &'a Status,
    channel: u64,
    reason: Option<ResetReason>,
}

impl ToolInFlight<'_> {
    /// No part of it runs any more, or it never ran.
    pub(super) fn has_ended(mut self) {
        self.reason = None;
    }

    /// What it did isn't known.
    pub(super) fn needs_reset(mut self, reason: ResetReason) {
        self.reason = Some(reason);
    }
}

impl Drop for ToolInFlight<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            self.status.demand_reset(self.channel, reason);
        }
    }
}
