//! The VMM's events, compared with the calls that were made: a VM that waits must not have been touched by anything else.

use std::collections::VecDeque;

use crate::broadcast::{Receiver, TryRecvError};
use crate::client::MonitorEvent;

/// The events of a VMM since its start, and those that this process's own calls explain.
#[derive(Debug)]
pub(super) struct CausedEvents {
    events: Receiver<MonitorEvent>,
    expected: VecDeque<&'static str>,
}

impl CausedEvents {
    /// From now on, of a VMM that was just started.
    pub(super) fn new(events: Receiver<MonitorEvent>) -> Self {
        CausedEvents {
            events,
            expected: VecDeque::new(),
        }
    }

    /// A call is about to be made that these events of the VM follow, in this order.
    pub(super) fn expect(&mut self, events: [&'static str; 2]) {
        self.expected.extend(events);
    }

    /// The first event so far that no call explains, if there is one. An event that is late or was lost is none: the
    /// stream drops the oldest events when it is full.
    pub(super) fn unexpected(&mut self) -> Option<String> {
        loop {
            let event = match self.events.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Lagged(count)) => {
                    return Some(format!("{count} events more than are kept"));
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            };
            // The start, and the devices that a restore sets up.
            let own = [("vmm", "starting"), ("virtio-device", "activated")];
            if own.contains(&(&*event.source, &*event.event)) {
                continue;
            }
            let known = |expected: &&str| event.source == "vm" && event.event == **expected;
            match self.expected.iter().position(known) {
                // What was expected before it was lost.
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

    use super::CausedEvents;
    use crate::broadcast::{self, Capacity};
    use crate::client::MonitorEvent;

    const CAPACITY: Capacity = Capacity {
        count: 8,
        bytes: 1 << 20,
    };

    #[track_caller]
    fn check(told: &[&str], expected: Option<&str>) {
        let (sender, receiver) = broadcast::channel(CAPACITY);
        let mut caused = CausedEvents::new(receiver);
        caused.expect(["restoring", "restored"]);
        caused.expect(["resuming", "resumed"]);
        caused.expect(["pausing", "paused"]);
        for told in told {
            let (source, event) = told.split_once(' ').unwrap();
            sender.send(MonitorEvent {
                timestamp: Duration::ZERO,
                source: source.to_owned(),
                event: event.to_owned(),
                properties: BTreeMap::new(),
            });
        }
        assert_eq!(caused.unexpected().as_deref(), expected, "{told:?}");
    }

    #[test]
    fn what_no_call_explains_is_told() {
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
        check(&many, Some("2 events more than are kept"));
    }
}
