//! [`ToolInFlight`]: a tool from its start to its end. It changes the sandbox's state by how the tool ended, and
//! reports start and end to the subscribers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call_activity::Call;
use super::status::Status;
use super::{
    Error, Event, ResetReason, RunReport, StreamEvidence, ToolExecution, ToolOutcome, ToolRefusal,
};
use crate::vsock;

/// A tool that was begun. If it is dropped before [`conclude`](Self::conclude) or [`refuse`](Self::refuse), its caller
/// is gone: the sandbox then needs a reset, and the end is reported with that reason.
pub(super) struct ToolInFlight {
    status: Arc<Status>,
    /// The number of the channel on which it was begun.
    channel: u64,
    command_id: String,
    deadline: Duration,
    began: Instant,
    is_concluded: bool,
    _call: Call,
}

/// The result of a tool that has ended, as [`Event::ToolEnded`] reports it.
pub(super) trait EndReport {
    fn outcome(&self) -> &ToolOutcome;

    /// The evidence of a run with streams; `None` of other tools.
    fn evidence(&self) -> Option<&StreamEvidence>;
}

impl EndReport for ToolExecution {
    fn outcome(&self) -> &ToolOutcome {
        &self.outcome
    }

    fn evidence(&self) -> Option<&StreamEvidence> {
        None
    }
}

impl EndReport for RunReport {
    fn outcome(&self) -> &ToolOutcome {
        &self.outcome
    }

    fn evidence(&self) -> Option<&StreamEvidence> {
        Some(&self.evidence)
    }
}

/// How a tool's end changes the sandbox's state.
enum NextState {
    /// The guest says that the tool has ended: the state stays as it is.
    Ended,
    /// The tool was not sent to the guest: the sandbox is ready again.
    Unsent,
    /// The tool may still run: the sandbox needs a reset.
    NeedsReset(ResetReason),
}

impl ToolInFlight {
    /// Begins a tool and reports its start.
    pub(super) fn begin(
        status: &Arc<Status>,
        channel: u64,
        (command_id, tool): (&str, &str),
        deadline: Duration,
        call: Call,
    ) -> ToolInFlight {
        status.emit(Event::ToolStarted {
            command_id: command_id.to_owned(),
            tool: tool.to_owned(),
        });
        ToolInFlight {
            status: Arc::clone(status),
            channel,
            command_id: command_id.to_owned(),
            deadline,
            began: Instant::now(),
            is_concluded: false,
            _call: call,
        }
    }

    /// How long the tool has taken so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Concludes a tool whose run could not be opened because of `error`. Returns the error for the caller.
    pub(super) fn refuse(self, error: Error) -> Error {
        let refused: Result<RunReport, Error> = self.conclude(Err(error));
        refused.expect_err("`conclude` returns an error for an error")
    }

    /// Concludes a tool that has ended, or that is not waited for any more: changes the state, reports the end, and
    /// returns the result for the caller.
    pub(super) fn conclude<T: EndReport>(mut self, ended: Result<T, Error>) -> Result<T, Error> {
        self.is_concluded = true;
        let took = self.elapsed();
        let (after, ended) = match ended {
            Ok(ended) => (NextState::Ended, Ok(ended)),
            Err(Error::Channel(source)) => {
                let (after, error) = self.classify(source);
                (after, Err(error))
            }
            // A reset, a shutdown or the VMM's end closed the channel and changed the state. This demand for a reset
            // then concerns a channel that is not the present one, and does nothing.
            Err(error) => (
                NextState::NeedsReset(ResetReason::ChannelBroken),
                Err(error),
            ),
        };
        match after {
            NextState::Ended => {}
            NextState::Unsent => self.status.ready_again(self.channel),
            NextState::NeedsReset(reason) => self.status.require_reset(self.channel, reason, None),
        }
        self.tell(ended.as_ref(), took);
        ended
    }

    /// What an error of the channel or of the run's connection means for the state, and the error for the caller.
    fn classify(&self, source: vsock::Error) -> (NextState, Error) {
        use vsock::Error as Failure;

        match source {
            Failure::ToolTimeout { .. } => {
                let deadline = self.deadline;
                (
                    NextState::NeedsReset(ResetReason::ToolTimedOut),
                    Error::ToolTimeout { deadline, source },
                )
            }
            Failure::NoAnswer { .. } => (
                NextState::NeedsReset(ResetReason::ToolTimedOut),
                Error::Channel(source),
            ),
            Failure::Evidence { .. } => (
                NextState::NeedsReset(ResetReason::EvidenceRejected),
                Error::Channel(source),
            ),
            Failure::RequestTooLarge { .. } => (
                NextState::Unsent,
                Error::ToolRefused(ToolRefusal::TooLarge(source)),
            ),
            Failure::NotAnnounced { .. } => (
                NextState::Unsent,
                Error::ToolRefused(ToolRefusal::NotSupported(source)),
            ),
            // The guest says that it runs nothing. The state stays as it is: with one tool between two resets, the
            // sandbox already needs a reset, whether or not the guest tells the truth.
            Failure::TooManyStreams { .. } | Failure::Refused { .. } => {
                (NextState::Ended, Error::Channel(source))
            }
            source if source.is_duplicate() => (NextState::Unsent, Error::Channel(source)),
            source => {
                let after = match source {
                    Failure::Handshake { .. } => NextState::Unsent,
                    _ => NextState::NeedsReset(ResetReason::ChannelBroken),
                };
                let ended = self.status.closed_error(self.channel);
                (after, ended.unwrap_or(Error::Channel(source)))
            }
        }
    }

    fn tell<T: EndReport>(&mut self, ended: Result<&T, &Error>, took: Duration) {
        self.status.emit(Event::ToolEnded {
            command_id: std::mem::take(&mut self.command_id),
            evidence: ended.ok().and_then(EndReport::evidence).cloned(),
            result: ended.map(EndReport::outcome).cloned().map_err(Error::clone),
            took,
        });
    }
}

impl Drop for ToolInFlight {
    fn drop(&mut self) {
        if !self.is_concluded {
            let reason = ResetReason::CallerGone;
            self.status.require_reset(self.channel, reason, None);
            let took = self.elapsed();
            self.tell::<RunReport>(Err(&Error::NeedsReset { reason }), took);
        }
    }
}
