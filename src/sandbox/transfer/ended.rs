//! [`TransferEnded`]: the event of a transfer that has ended. [`Transfer`] sends it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Direction, Error, Event, TransferError, TransferReport};
use crate::archive::Totals;
use crate::causes::Causes;
use crate::sandbox::call_activity::Call;
use crate::sandbox::status::Status;

/// A transfer of files that has ended: the content of [`Event::FilesPushed`] and [`Event::FilesPulled`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TransferEnded {
    /// The random name of this transfer.
    pub transfer_id: Uuid,
    /// The path in the guest.
    pub path: String,
    /// The number of entries and bytes with the digest of the tar stream, or why the transfer failed.
    pub result: Result<Totals, Error>,
    /// How long the transfer took.
    pub took: Duration,
}

impl TransferEnded {
    /// The fields of the event's JSON object, with errors as `error` shows them.
    pub(in crate::sandbox) fn fields(&self, error: impl Fn(&Error) -> Value) -> Value {
        let took_us = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX);
        let (id, path) = (self.transfer_id, &self.path);
        let mut fields = json!({ "transfer_id": id, "path": path, "took_us": took_us });
        match &self.result {
            Ok(totals) => {
                fields["entries"] = json!(totals.entries);
                fields["bytes"] = json!(totals.bytes);
                fields["sha256"] = json!(totals.sha256);
            }
            Err(why) => fields["error"] = error(why),
        }
        fields
    }
}

impl fmt::Display for TransferEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.result {
            Ok(totals) => write!(f, "{path:?}: {totals}"),
            Err(error) => write!(f, "{path:?} failed: {}", Causes(error)),
        }
    }
}

/// A transfer that is under way. If it is dropped before [`emit`](Self::emit), it sends the event with the error
/// [`TransferError::GivenUp`].
pub(in crate::sandbox) struct Transfer {
    status: Arc<Status>,
    direction: Direction,
    id: Uuid,
    path: String,
    began: Instant,
    is_told: bool,
    _call: Call,
}

impl Transfer {
    pub(in crate::sandbox) fn begin(
        status: &Arc<Status>,
        direction: Direction,
        path: &str,
        call: Call,
    ) -> Transfer {
        Transfer {
            status: Arc::clone(status),
            direction,
            id: Uuid::new_v4(),
            path: path.to_owned(),
            began: Instant::now(),
            is_told: false,
            _call: call,
        }
    }

    pub(in crate::sandbox) fn id(&self) -> Uuid {
        self.id
    }

    /// Sends the event of the transfer's end.
    pub(in crate::sandbox) fn emit(&mut self, result: &Result<TransferReport, Error>) {
        self.is_told = true;
        let moved = TransferEnded {
            transfer_id: self.id,
            path: std::mem::take(&mut self.path),
            result: match result {
                Ok(report) => Ok(report.totals),
                Err(error) => Err(error.clone()),
            },
            took: self.began.elapsed(),
        };
        self.status.emit(match self.direction {
            Direction::Push => Event::FilesPushed(moved),
            Direction::Pull => Event::FilesPulled(moved),
        });
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if !self.is_told {
            self.emit(&Err(TransferError::GivenUp.into()));
        }
    }
}
