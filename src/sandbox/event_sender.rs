//! [`Events`]: sends the events of a sandbox or a pool to its subscribers, and keeps the last ones as text for
//! evidence.

use std::sync::Mutex;

use super::Event;
use super::evidence::Journal;
use crate::broadcast::{Capacity, Receiver, Sender};
use crate::mutex::lock;

/// How far a subscriber may fall behind before it loses the oldest events.
const CAPACITY: Capacity = Capacity {
    count: 256,
    bytes: 8 << 20,
};

/// Sends events to subscribers, and keeps a [`Journal`] of the last ones.
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

    /// Writes the event to the journal, counts it in the metrics, and sends it to the subscribers.
    pub(super) fn emit(&self, event: Event) {
        let mut journal = lock(&self.journal);
        journal.note(&event);
        #[cfg(feature = "metrics")]
        super::metrics::count(&event);
        self.sender.send(event);
    }

    /// The last events, one on each line.
    pub(super) fn journal(&self) -> String {
        lock(&self.journal).to_string()
    }
}
