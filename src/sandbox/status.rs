//! [`Status`]: the sandbox's state and the tools' channel. Tools, subscribers and `state()` use it without waiting for
//! the driver.

use std::sync::Arc;

use tokio::sync::watch;

use super::event_sender::Events;
use super::transfer::Direction;
use super::{Error, Event, ResetReason, SandboxState, ToolsPerReset};
use crate::causes::Causes;
use crate::vmm::Ended;
use crate::vsock::Channel;

/// The sandbox's state, the tools' channel, and the events. The driver changes the state. A tool can only change it
/// between `Ready` and `NeedsReset`.
#[derive(Debug)]
pub(super) struct Status {
    standing: watch::Sender<Current>,
    events: Arc<Events>,
}

#[derive(Debug)]
struct Current {
    state: SandboxState,
    /// The channel that tools use. `Some` in the states `Ready` and `NeedsReset`.
    channel: Option<Channel>,
    /// The number of the last channel that was closed on this side, and the error of the tools that it ended.
    closed: Option<(u64, Error)>,
}

impl Default for Status {
    fn default() -> Self {
        Status {
            standing: watch::Sender::new(Current {
                state: SandboxState::NotBooted,
                channel: None,
                closed: None,
            }),
            events: Arc::default(),
        }
    }
}

impl Status {
    pub(super) fn events(&self) -> &Arc<Events> {
        &self.events
    }

    pub(super) fn state(&self) -> SandboxState {
        self.standing.borrow().state.clone()
    }

    /// Waits until the state isn't `Ready`.
    pub(super) async fn no_longer_ready(&self) {
        let mut standing = self.standing.subscribe();
        let is_not = |standing: &Current| !matches!(standing.state, SandboxState::Ready);
        // No error can come: `self` holds the sender.
        let _ = standing.wait_for(is_not).await;
    }

    /// Sends the event to the subscribers.
    pub(super) fn emit(&self, event: Event) {
        self.events.emit(event);
    }

    /// Changes to `state`, which takes no tool: closes the channel, which ends the tools and transfers that are under
    /// way.
    pub(super) fn set(&self, state: SandboxState) {
        self.change(None, |standing| {
            standing.close(match &state {
                SandboxState::Resetting => Error::ResetInterrupted,
                SandboxState::Failed { error } => error.clone(),
                _ => Error::ShutDown,
            });
            Some(state)
        });
    }

    /// Closes the channel without a change of the state. Tools and transfers that are under way end with `error`, and
    /// no other one begins.
    pub(super) fn end_tools(&self, error: Error) {
        self.change(None, |standing| {
            standing.close(error);
            None
        });
    }

    /// Notes that the VMM has ended by itself: sends the event, and changes `Ready` and `NeedsReset` to `Failed`.
    pub(super) fn vmm_ended(&self, ended: Ended) {
        let ended = Arc::new(ended);
        let event = Event::VmmEnded(ended.as_ref().clone());
        self.change(Some(event), |standing| match standing.state {
            SandboxState::Ready | SandboxState::NeedsReset { .. } => {
                let error = Error::VmmEnded(ended);
                standing.close(error.clone());
                Some(SandboxState::Failed { error })
            }
            _ => None,
        });
    }

    /// The error of the tools that were ended when the channel of this number was closed on this side. `None` if it
    /// wasn't.
    pub(super) fn closed_error(&self, channel: u64) -> Option<Error> {
        let standing = self.standing.borrow();
        let (closed, why) = standing.closed.as_ref()?;
        (*closed == channel).then(|| why.clone())
    }

    /// The channel for a transfer of files. A pull is also allowed after the one tool that a sandbox runs between two
    /// resets.
    pub(super) fn for_files(&self, direction: Direction) -> Result<Channel, Error> {
        let standing = self.standing.borrow();
        let action = match direction {
            Direction::Push => "take files",
            Direction::Pull => "give files",
        };
        let ran = ResetReason::ToolRan;
        let is_allowed = match &standing.state {
            SandboxState::Ready => true,
            SandboxState::NeedsReset { reason } => direction == Direction::Pull && *reason == ran,
            _ => false,
        };
        match &standing.channel {
            Some(channel) if is_allowed => Ok(channel.clone()),
            _ => Err(not_ready(&standing.state, action)),
        }
    }

    /// Changes to `Ready`: tools use `channel` from now on.
    pub(super) fn ready(&self, channel: Channel) {
        self.change(None, |standing| {
            standing.channel = Some(channel);
            Some(SandboxState::Ready)
        });
    }

    /// Sends the event `cause`, and changes `Ready` to `NeedsReset` if the channel of this number is the present one.
    pub(super) fn require_reset(&self, channel: u64, reason: ResetReason, cause: Option<Event>) {
        self.change(cause, |standing| {
            let takes_tools = match standing.state {
                SandboxState::Ready => true,
                // Any other reason says more than `ToolRan` and replaces it.
                SandboxState::NeedsReset { reason: before } => {
                    before == ResetReason::ToolRan && reason != before
                }
                _ => false,
            };
            let is_present = standing.is_present(channel);
            (is_present && takes_tools).then_some(SandboxState::NeedsReset { reason })
        });
    }

    /// Sends the event `cause`, calls `change`, and changes to the state that it returns, if it returns one. All three
    /// happen under one lock: events are in the order of the changes, and a subscriber that gets `cause` sees the
    /// changed state.
    fn change(
        &self,
        cause: Option<Event>,
        change: impl FnOnce(&mut Current) -> Option<SandboxState>,
    ) {
        self.standing.send_if_modified(|standing| {
            if let Some(cause) = cause {
                self.emit(cause);
            }
            let had_channel = standing.channel.is_some();
            let state = change(standing);
            // A closed channel has to be noticed by those who wait in `closed`, even if the state stays the same.
            let is_closed = had_channel && standing.channel.is_none();
            let Some(state) = state else {
                return is_closed;
            };
            if let (SandboxState::NotBooted, SandboxState::NotBooted) = (&standing.state, &state) {
                return is_closed;
            }
            let before = std::mem::replace(&mut standing.state, state.clone());
            if let SandboxState::Failed { error } = &state {
                tracing::error!(error = %Causes(error), "the sandbox has failed");
            }
            tracing::debug!(%before, after = %state, "the sandbox's state changed");
            self.emit(Event::State(state));
            true
        });
    }

    /// The error of a call that the present state doesn't allow.
    pub(super) fn not_ready(&self, action: &'static str) -> Error {
        not_ready(&self.standing.borrow().state, action)
    }

    /// Takes the channel for one tool. With `ToolsPerReset::One` the state becomes `NeedsReset`, so that no other tool
    /// begins.
    pub(super) fn begin_tool(&self, per_reset: ToolsPerReset) -> Result<Channel, Error> {
        let mut begun = None;
        self.change(None, |standing| {
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
        begun.expect("the closure was called")
    }

    /// Waits until the channel of this number is closed on this side. Returns the error for what used it.
    pub(super) async fn closed(self: Arc<Self>, channel: u64) -> Error {
        let mut standing = self.standing.subscribe();
        // No error can come: `self` holds the sender.
        let _ = standing.wait_for(|it| !it.is_present(channel)).await;
        self.closed_error(channel).unwrap_or(Error::ShutDown)
    }

    /// Changes `NeedsReset` because of `ToolRan` back to `Ready`: the tool that was begun on this channel was not sent.
    pub(super) fn ready_again(&self, channel: u64) {
        self.change(None, |standing| {
            let reason = ResetReason::ToolRan;
            let waits =
                matches!(standing.state, SandboxState::NeedsReset { reason: it } if it == reason);
            (waits && standing.is_present(channel)).then_some(SandboxState::Ready)
        });
    }
}

impl Current {
    /// Closes the channel, if there is one. The tools and transfers that use it end with `error`.
    fn close(&mut self, error: Error) {
        if let Some(channel) = self.channel.take() {
            self.closed = Some((channel.origin().channel, error));
            channel.close();
        }
    }

    fn is_present(&self, channel: u64) -> bool {
        let present = self.channel.as_ref();
        present.is_some_and(|it| it.origin().channel == channel)
    }
}

fn not_ready(state: &SandboxState, action: &'static str) -> Error {
    match state {
        SandboxState::Halted { failed } => Error::Halted {
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
