//! The set of commands whose tools run now. [`InFlight`] is one of these commands.

use std::sync::Arc;

use super::{MAX_IN_FLIGHT, Shared};
use crate::mutex::lock;

/// A command whose tool runs. The command is in the set until this is dropped.
pub(super) struct InFlight {
    shared: Arc<Shared>,
    id: String,
}

/// Why a command can't run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// A command with this id runs.
    Duplicate,
    /// [`MAX_IN_FLIGHT`] commands run.
    Full,
}

impl Busy {
    /// The text that the host gets.
    pub(super) fn reason(self, id: &str) -> String {
        match self {
            Busy::Duplicate => format!("the command {id:?} is in flight"),
            Busy::Full => format!("{MAX_IN_FLIGHT} tools are running already"),
        }
    }
}

impl InFlight {
    pub(super) fn enter(shared: &Arc<Shared>, id: &str) -> Result<InFlight, Busy> {
        let mut in_flight = lock(&shared.in_flight);
        if in_flight.contains(id) {
            return Err(Busy::Duplicate);
        }
        if in_flight.len() == MAX_IN_FLIGHT {
            return Err(Busy::Full);
        }
        in_flight.insert(id.to_owned());
        Ok(InFlight {
            shared: Arc::clone(shared),
            id: id.to_owned(),
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        lock(&self.shared.in_flight).remove(&self.id);
    }
}
