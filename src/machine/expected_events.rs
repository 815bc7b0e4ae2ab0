//! [`ExpectedEvents`] compares a VMM's events with the API calls of this process. An event that no call explains shows
//! that another process has changed a staged VM.

use std::collections::VecDeque;

use crate::broadcast::{Receiver, TryRecvError};
use crate::vmm::Event;

/// The events of a VMM since its start, and the events that follow from this process's own calls.
#[derive(Debug)]
pub(super) struct ExpectedEvents {
    events: Receiver<Event>,
    expected: VecDeque<&'static str>,
}

impl ExpectedEvents {
    /// Watches the events of a VMM that was just started.
    pub(super) fn new(events: Receiver<Event>) -> Self {
        ExpectedEvents {
            events,
            expected: VecDeque::new(),
        }
    }

    /// Announces a call, before it is made, with the VM's events that follow from it, in their order.
    pub(super) fn expect(&mut self, events: [&'static str; 2]) {
        self.expected.extend(events);
    }

    /// Returns the first event so far that no call explains, if there is one. An expected event that is late or was
    /// lost is not an error. If the stream was full and dropped events, that counts as unexpected.
    pub(super) fn unexpected(&mut self) -> Option<String> {
        loop {
            let event = match self.events.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Lagged(count)) => {
                    return Some(format!("{count} events more than the stream keeps"));
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            };
            // The VMM's start, and the activation of the devices during a restore, need no call to explain them.
            let own = [("vmm", "starting"), ("virtio-device", "activated")];
            if own.contains(&(&*event.source, &*event.event)) {
                continue;
            }
            let known = |expected: &&str| event.source == "vm" && event.event == **expected;
            match self.expected.iter().position(known) {
                // Expected events before this one were lost, so they are removed too.
                Some(at) => drop(self.expected.drain(..=at)),
                None => return Some(format!("{} of {}", event.event, event.source)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::ExpectedEvents;
    use crate::broadcast::{self, Capacity};
    use crate::vmm::Event;

    const CAPACITY: Capacity = Capacity {
        count: 8,
        bytes: 1 << 20,
    };

    #[track_caller]
    fn check(sent: &[&str], expected: Option<&str>) {
        let (sender, receiver) = broadcast::channel(CAPACITY);
        let mut caused = ExpectedEvents::new(receiver);
        caused.expect(["restoring", "restored"]);
        caused.expect(["resuming", "resumed"]);
        caused.expect(["pausing", "paused"]);
        for sent in sent {
            let (source, event) = sent.split_once(' ').unwrap();
            sender.send(Event {
                timestamp: Duration::ZERO,
                source: source.to_owned(),
                event: event.to_owned(),
                properties: BTreeMap::new(),
            });
        }
        assert_eq!(caused.unexpected().as_deref(), expected, "{sent:?}");
    }

    #[test]
    fn an_event_that_no_call_explains_is_reported() {
        check(&[], None);
        check(&["vmm starting", "vm restoring", "vm restored"], None);
        check(&["vm restoring", "vm resumed", "vm paused"], None);
        check(&["vm resumed", "vm resuming"], Some("resuming of vm"));
        check(&["vm paused", "vm resuming"], Some("resuming of vm"));
        check(&["vm deleted"], Some("deleted of vm"));
        check(&["vmm shutdown"], Some("shutdown of vmm"));
        check(&["vm restored", "virtio-device activated"], None);
        check(&["virtio-device reset"], Some("reset of virtio-device"));
        let many = ["vm restoring"; 10];
        check(&many, Some("2 events more than the stream keeps"));
    }
}
