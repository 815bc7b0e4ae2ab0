//! A tool that was begun, until it is known how it ended: what that means for the sandbox's state, and for its subscribers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::calls::Call;
use super::status::Status;
use super::{
    Error, Event, ResetReason, RunReport, StreamEvidence, ToolExecution, ToolOutcome, ToolRefusal,
};
use crate::vsock;

/// A tool in flight. One that is dropped before its end leaves a sandbox that needs a reset, and is told as ended.
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

/// What is told of a tool that has ended.
pub(super) trait Ended {
    fn outcome(&self) -> &ToolOutcome;

    /// Of a run with streams.
    fn evidence(&self) -> Option<&StreamEvidence>;
}

impl Ended for ToolExecution {
    fn outcome(&self) -> &ToolOutcome {
        &self.outcome
    }

    fn evidence(&self) -> Option<&StreamEvidence> {
        None
    }
}

impl Ended for RunReport {
    fn outcome(&self) -> &ToolOutcome {
        &self.outcome
    }

    fn evidence(&self) -> Option<&StreamEvidence> {
        Some(&self.evidence)
    }
}

/// What becomes of the sandbox after a tool.
enum After {
    /// No part of the tool runs any more.
    Ended,
    /// It was not sent to the guest.
    Unsent,
    /// What it did isn't known.
    NeedsReset(ResetReason),
}

impl ToolInFlight {
    /// Begins a tool, and tells of it.
    pub(super) fn begin(
        status: &Arc<Status>,
        channel: u64,
        (command_id, tool): (&str, &str),
        deadline: Duration,
        call: Call,
    ) -> ToolInFlight {
        status.tell(Event::ToolStarted {
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

    /// How long it has taken so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// No run of the tool came about, because of `error`; what its caller gets.
    pub(super) fn refuse(self, error: Error) -> Error {
        let refused: Result<RunReport, Error> = self.conclude(Err(error));
        refused.expect_err("an error stays one")
    }

    /// The tool has ended, or is not waited for any more: changes the state, tells of it, and returns what the caller gets.
    pub(super) fn conclude<T: Ended>(mut self, ended: Result<T, Error>) -> Result<T, Error> {
        self.is_concluded = true;
        let took = self.elapsed();
        let (after, ended) = match ended {
            Ok(ended) => (After::Ended, Ok(ended)),
            Err(Error::Channel(source)) => {
                let (after, error) = self.judge(source);
                (after, Err(error))
            }
            // The state was changed by the call that ended it.
            Err(error) => (After::NeedsReset(ResetReason::ChannelBroken), Err(error)),
        };
        match after {
            After::Ended => {}
            After::Unsent => self.status.take_tools_again(self.channel),
            After::NeedsReset(reason) => self.status.demand_reset(self.channel, reason, None),
        }
        self.tell(ended.as_ref(), took);
        ended
    }

    /// What an error of its connection means.
    fn judge(&self, source: vsock::Error) -> (After, Error) {
        use vsock::Error as Failure;

        match source {
            Failure::ToolTimeout { .. } => {
                let deadline = self.deadline;
                (
                    After::NeedsReset(ResetReason::ToolTimedOut),
                    Error::ToolTimeout { deadline, source },
                )
            }
            Failure::NoAnswer { .. } => (
                After::NeedsReset(ResetReason::ToolTimedOut),
                Error::Channel(source),
            ),
            Failure::Evidence { .. } => (
                After::NeedsReset(ResetReason::EvidenceRejected),
                Error::Channel(source),
            ),
            Failure::RequestTooLarge { .. } => (
                After::Unsent,
                Error::ToolRefused(ToolRefusal::TooLarge(source)),
            ),
            Failure::NotAnnounced { .. } => (
                After::Unsent,
                Error::ToolRefused(ToolRefusal::NotSupported(source)),
            ),
            // By the guest's word it runs nothing. With one tool a reset the sandbox takes no other all the same.
            Failure::TooManyStreams { .. } | Failure::Refused { .. } => {
                (After::Ended, Error::Channel(source))
            }
            source if source.is_duplicate() => (After::Unsent, Error::Channel(source)),
            source => {
                let after = match source {
                    Failure::Handshake { .. } => After::Unsent,
                    _ => After::NeedsReset(ResetReason::ChannelBroken),
                };
                let ended = self.status.why_closed(self.channel);
                (after, ended.unwrap_or(Error::Channel(source)))
            }
        }
    }

    fn tell<T: Ended>(&mut self, ended: Result<&T, &Error>, took: Duration) {
        self.status.tell(Event::ToolEnded {
            command_id: std::mem::take(&mut self.command_id),
            evidence: ended.ok().and_then(Ended::evidence).cloned(),
            result: ended.map(Ended::outcome).cloned().map_err(Error::clone),
            took,
        });
    }
}

impl Drop for ToolInFlight {
    fn drop(&mut self) {
        if !self.is_concluded {
            let reason = ResetReason::CallerGone;
            self.status.demand_reset(self.channel, reason, None);
            let took = self.elapsed();
            self.tell::<RunReport>(Err(&Error::NeedsReset { reason }), took);
        }
    }
}
