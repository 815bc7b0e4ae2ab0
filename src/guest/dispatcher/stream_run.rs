//! Runs the tool of one [`OpenRun`], from that frame to the last record of its connection.

use std::sync::Arc;
use std::time::Instant;

use super::confinement::StartError;
use super::in_flight::{Busy, InFlight};
use super::relay::Relay;
use super::running::Running;
use super::session::{DUPLICATE_REQUEST, MAX_ID, PROTOCOL_ERROR};
use super::stream_connection::{StreamConnection, StreamSlot};
use super::toolbox::{Refused, RunOptions};
use super::{ServeError, Shared};
use crate::guest::protocol::{OpenRun, RunOutcome, StdinMode};
use crate::sanitize;

/// The most characters of a reason that is sent to the host.
const MAX_REASON: usize = 1000;

impl Shared {
    /// Runs a tool with streams until `deadline`, on a connection whose first frame was `open`. `body` is that frame's
    /// body as it was sent, which begins both hash chains.
    pub(super) fn run_with_streams(
        self: &Arc<Self>,
        open: &OpenRun,
        body: &[u8],
        deadline: Instant,
        mut stream: StreamConnection,
        place: StreamSlot,
    ) -> Result<(), ServeError> {
        let id = &open.command_id;
        if id.len() > MAX_ID {
            let message = format!("a command_id has at most {MAX_ID} bytes, not {}", id.len());
            return Ok(stream.refuse(PROTOCOL_ERROR, message)?);
        }
        let in_flight = InFlight::enter(self, id);
        if let Err(Busy::Duplicate) = in_flight {
            return Ok(stream.refuse(DUPLICATE_REQUEST, Busy::Duplicate.reason(id))?);
        }
        stream.opened()?;
        let mut relay = Relay::new(&mut stream, body, deadline);
        let started = match &in_flight {
            Ok(_) => self.start(open, deadline),
            Err(busy) => Err(RunOutcome::Refused {
                reason: busy.reason(id),
            }),
        };
        let outcome = match started {
            Ok((tool, allowance)) => {
                let outcome = relay.follow(tool, allowance)?;
                self.sync();
                outcome
            }
            Err(outcome) => Some(outcome),
        };
        // Once the host has the end, it may open another run at once. So the place and the id have to be free before.
        drop((in_flight, place));
        match outcome {
            Some(outcome) => relay.end(bounded(outcome)),
            None => Ok(()),
        }
    }

    /// Starts the tool. Returns it with the number of bytes of its output that may be sent.
    fn start(&self, open: &OpenRun, deadline: Instant) -> Result<(Running, u64), RunOutcome> {
        let wishes = RunOptions {
            stdin: open.stdin == StdinMode::Piped,
            env: Some(&open.env),
            cwd: open.cwd.as_deref(),
        };
        let call = match self.call(&open.tool, &open.params, &wishes, open.deadline_ms) {
            Ok(call) => call,
            Err(Refused::UnknownTool) => return Err(RunOutcome::NoSuchTool {}),
            Err(Refused::Because(reason)) => return Err(RunOutcome::Refused { reason }),
        };
        match Running::start(&call, deadline, &self.confinement) {
            Ok(tool) => {
                let limit = self.confinement.output_limit(&call);
                Ok((tool, limit.unwrap_or(u64::MAX)))
            }
            Err(StartError::Directory(error)) => Err(RunOutcome::Refused {
                reason: format!("the tool can't enter its directory: {error}"),
            }),
            Err(StartError::Other(error)) => Err(RunOutcome::GuestFailed {
                reason: format!("{} could not be run: {error}", call.name()),
            }),
        }
    }
}

/// Cuts the reason of an outcome to a length that fits a record.
fn bounded(outcome: RunOutcome) -> RunOutcome {
    match outcome {
        RunOutcome::Refused { reason } => RunOutcome::Refused {
            reason: sanitize::line(&reason, MAX_REASON),
        },
        RunOutcome::GuestFailed { reason } => RunOutcome::GuestFailed {
            reason: sanitize::line(&reason, MAX_REASON),
        },
        other => other,
    }
}
