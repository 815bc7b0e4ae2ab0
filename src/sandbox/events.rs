//! The events of a sandbox or a pool: for its subscribers, and the last of them for evidence.

use std::sync::{Mutex, PoisonError};

use super::Event;
use super::evidence::Journal;
use crate::broadcast::{Capacity, Receiver, Sender};

/// How far a subscriber may fall behind.
const CAPACITY: Capacity = Capacity {
    count: 256,
    bytes: 8 << 20,
};

/// Passes events on to subscribers, and remembers the last of them.
#[derive(Debug)]
pub(super) struct Events {
    sender: Sender<Event>,
    journal: Mutex<Journal>,
}

impl Default for Events {
    fn default() -> Self {
        Events {
            sender: Sender::new(CAPACITY),
            journal: Mutex::default(),
        }
    }
}

impl Events {
    pub(super) fn subscribe(&self) -> Receiver<Event> {
        self.sender.subscribe()
    }

    /// Tells the subscribers, and notes it for the evidence.
    pub(super) fn tell(&self, event: Event) {
        let journal = self.journal.lock();
        let mut journal = journal.unwrap_or_else(PoisonError::into_inner);
        journal.note(&event);
        #[cfg(feature = "metrics")]
        super::metrics::count(&event);
        self.sender.send(event);
    }

    /// The last events, a line each.
    pub(super) fn journal(&self) -> String {
        let journal = self.journal.lock();
        journal.unwrap_or_else(PoisonError::into_inner).to_string()
    }
}
