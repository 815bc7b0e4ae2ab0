//! Where a sandbox stands, for those that don't wait for its driver: tools, subscribers, `state()`.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::evidence::Journal;
use super::{Error, Event, ResetReason, SandboxState, ToolsPerReset};
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
    /// The number of the channel before, and why it was closed here.
    closed: Option<(u64, Error)>,
}

impl Default for Status {
    fn default() -> Self {
        Status {
            standing: watch::Sender::new(Standing {
                state: SandboxState::NotBooted,
                channel: None,
                closed: None,
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
        self.end_tools(match &state {
            SandboxState::Resetting => Error::ResetInterrupted,
            SandboxState::Failed { error } => error.clone(),
            _ => Error::ShutDown,
        });
        self.change(|_| Some(state));
    }

    /// Closes the channel, so that tools in flight end with `error`, and no other begins.
    pub(super) fn end_tools(&self, error: Error) {
        self.standing.send_if_modified(|standing| {
            if let Some(channel) = standing.channel.take() {
                standing.closed = Some((channel.origin().channel, error));
                channel.close();
            }
            false
        });
    }

    /// Why the channel of this number was closed here, if it was.
    pub(super) fn why_closed(&self, channel: u64) -> Option<Error> {
        let standing = self.standing.borrow();
        let (closed, why) = standing.closed.as_ref()?;
        (*closed == channel).then(|| why.clone())
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
            let takes_tools = match standing.state {
                SandboxState::Ready => true,
                // What says more of why replaces that a tool ran.
                SandboxState::NeedsReset { reason: before } => {
                    before == ResetReason::ToolRan && reason != before
                }
                _ => false,
            };
            let is_present = standing.is_present(channel);
            (is_present && takes_tools).then_some(SandboxState::NeedsReset { reason })
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

    /// Why the sandbox can't do what was asked in its present state.
    pub(super) fn not_ready(&self, action: &'static str) -> Error {
        not_ready(&self.standing.borrow().state, action)
    }

    /// The channel for one tool, which runs until the second value is dropped. With one tool a reset, no other is taken
    /// from now on.
    pub(super) fn begin_tool(
        &self,
        per_reset: ToolsPerReset,
    ) -> Result<(Channel, ToolInFlight<'_>), Error> {
        let mut begun = None;
        self.change(|standing| {
            let reason = match (&standing.state, &standing.channel) {
                (SandboxState::Ready, Some(channel)) if channel.is_poisoned() => {
                    let reason = ResetReason::ChannelBroken;
                    begun = Some(Err(Error::NeedsReset { reason }));
                    Some(reason)
                }
                (SandboxState::Ready, Some(channel)) => {
                    begun = Some(Ok(channel.clone()));
                    (per_reset == ToolsPerReset::One).then_some(ResetReason::ToolRan)
                }
                (state, _) => {
                    begun = Some(Err(not_ready(state, "run a tool")));
                    None
                }
            };
            reason.map(|reason| SandboxState::NeedsReset { reason })
        });
        let channel = begun.expect("the closure was called")?;
        let in_flight = ToolInFlight {
            status: self,
            channel: channel.origin().channel,
            reason: Some(ResetReason::CallerGone),
        };
        Ok((channel, in_flight))
    }

    /// No tool was sent on this channel after all.
    fn take_tools_again(&self, channel: u64) {
        self.change(|standing| {
            let reason = ResetReason::ToolRan;
            let waits =
                matches!(standing.state, SandboxState::NeedsReset { reason: it } if it == reason);
            (waits && standing.is_present(channel)).then_some(SandboxState::Ready)
        });
    }
}

impl Standing {
    fn is_present(&self, channel: u64) -> bool {
        let present = self.channel.as_ref();
        present.is_some_and(|it| it.origin().channel == channel)
    }
}

fn not_ready(state: &SandboxState, action: &'static str) -> Error {
    match state {
        SandboxState::Halted { failed } => Error::Halted {
            what: "sandbox",
            action,
            failed: Arc::clone(failed),
        },
        SandboxState::NeedsReset { reason } => Error::NeedsReset { reason: *reason },
        state => Error::NotReady {
            action,
            state: state.wire(),
        },
    }
}

/// A tool that runs. Its end, unless it [has ended](Self::has_ended), means that the sandbox needs a reset.
pub(super) struct ToolInFlight<'a> {
    status: &'a Status,
    channel: u64,
    reason: Option<ResetReason>,
}

impl ToolInFlight<'_> {
    /// No part of it runs any more.
    pub(super) fn has_ended(mut self) {
        self.reason = None;
    }

    /// It was not sent to the guest.
    pub(super) fn was_not_sent(mut self) {
        self.reason = None;
        self.status.take_tools_again(self.channel);
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
