//! [`Event`]: an event that a VMM writes to its event monitor. The stream consists of pretty-printed JSON objects, each
//! followed by a blank line.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::broadcast::{Capacity, Weight};
use crate::causes::Causes;
use crate::sanitize;

/// How many events are kept for a slow subscriber, before it loses the oldest ones.
pub(in crate::vmm) const BACKLOG: Capacity = Capacity {
    count: 256,
    bytes: 1 << 20,
};

/// The maximal length of an event, in bytes. The events of v53.0 have less than 1 KiB.
const MAX_EVENT: usize = 16 * 1024;

/// The maximal length of each text of an event, in characters.
const MAX_TEXT: usize = 4096;

/// An event of the VMM. It is a hint and doesn't replace a call: events get lost, and the VMM sends none for a failure.
///
/// Each text is made [safe to show](crate::sanitize::line) and has at most 4,096 characters.
///
/// Seen from v51.2 to v53.0: source `vmm` with `starting` and `shutdown` (the VMM often exits before it has written
/// this one); source `vm` with `booting`, `booted`, `pausing`, `paused`, `resuming`, `resumed`, `snapshotting`,
/// `snapshotted` (before the files are written), `restoring`, `restored`, `resizing`, `resized`, `rebooting`,
/// `rebooted`, `shutdown`, `deleted`; and further sources for the VM's devices.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// The time since the start of the VMM process.
    #[serde(deserialize_with = "timestamp")]
    pub timestamp: Duration,
    /// The part of the VMM that the event is about, such as `vm`.
    pub source: String,
    /// The name of the event, such as `booted`.
    pub event: String,
    /// Additional properties of the event; empty if it has none.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub properties: BTreeMap<String, String>,
}

fn timestamp<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    struct Timestamp {
        secs: u64,
        nanos: u32,
    }
    let Timestamp { secs, nanos } = Timestamp::deserialize(deserializer)?;
    // Unlike `Duration::new`, this can't overflow, whatever numbers the VMM sends.
    Ok(Duration::from_secs(secs).saturating_add(Duration::from_nanos(nanos.into())))
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Splits the bytes of an event monitor into events.
///
/// Bytes that are not an event are skipped up to the next blank line. The VMM writes truncated events when its pipe is
/// full.
#[derive(Debug, Default)]
pub(in crate::vmm) struct Decoder {
    buffer: Vec<u8>,
    /// Whether the event that is being read is too long. Its bytes are dropped up to the next blank line.
    overlong: bool,
}

impl Decoder {
    /// Adds `bytes`, and returns the events that they complete, in order.
    pub(in crate::vmm) fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        // The pieces are no longer than the limit, so that the buffer never has more than twice the limit.
        for piece in bytes.chunks(MAX_EVENT) {
            self.buffer.extend_from_slice(piece);
            let mut start = 0;
            // JSON has no raw newline inside a string, so two in a row always end an event.
            while let Some(length) = blank_line(&self.buffer[start..]) {
                let event = &self.buffer[start..start + length];
                if !std::mem::take(&mut self.overlong) {
                    events.extend(decode(event));
                }
                start += length + 2;
            }
            self.buffer.drain(..start);
            if self.buffer.len() > MAX_EVENT {
                tracing::debug!(
                    limit = MAX_EVENT,
                    "skipped an event of the VMM that is too long"
                );
                // The last byte may be the first newline of the blank line.
                self.buffer.drain(..self.buffer.len() - 1);
                self.overlong = true;
            }
        }
        events
    }
}

fn blank_line(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\n\n")
}

fn decode(bytes: &[u8]) -> Option<Event> {
    if bytes.trim_ascii().is_empty() {
        return None;
    }
    match serde_json::from_slice(bytes) {
        Ok(event) => Some(sanitized(event)),
        Err(error) => {
            tracing::debug!(
                error = %sanitize::line(&Causes(&error).to_string(), 200),
                length = bytes.len(),
                "skipped a truncated event of the VMM"
            );
            None
        }
    }
}

fn sanitized(event: Event) -> Event {
    let line = |text: &str| sanitize::line(text, MAX_TEXT);
    let properties = event.properties.iter();
    Event {
        timestamp: event.timestamp,
        source: line(&event.source),
        event: line(&event.event),
        properties: properties
            .map(|(name, value)| (line(name), line(value)))
            .collect(),
    }
}

impl Weight for Event {
    fn weight(&self) -> usize {
        let properties = self.properties.iter();
        let properties: usize = properties
            // Each entry takes two strings and its share of a node of the map.
            .map(|(name, value)| 4 * size_of::<String>() + name.len() + value.len())
            .sum();
        size_of::<Event>() + self.source.len() + self.event.len() + properties
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Decoder, Event, MAX_EVENT};

    const STARTING: &str = "{\n  \"timestamp\": {\n    \"secs\": 0,\n    \"nanos\": 5\n  },\n  \
        \"source\": \"vmm\",\n  \"event\": \"starting\",\n  \"properties\": null\n}\n\n";
    const REMOVED: &str = "{\"timestamp\":{\"secs\":2,\"nanos\":0},\"source\":\"vm\",\
        \"event\":\"device-removed\",\"properties\":{\"id\":\"_disk0\"}}\n\n";

    fn names(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.event.as_str()).collect()
    }

    #[test]
    fn an_event_is_read_whole() {
        let events = Decoder::default().push(format!("{STARTING}{REMOVED}").as_bytes());
        assert_eq!(names(&events), ["starting", "device-removed"]);
        assert_eq!(events[0].timestamp, Duration::from_nanos(5));
        assert_eq!(events[0].source, "vmm");
        assert!(events[0].properties.is_empty());
        assert_eq!(events[1].properties["id"], "_disk0");
    }

    #[test]
    fn any_split_gives_the_same_events() {
        let stream = format!("{STARTING}{REMOVED}{STARTING}");
        for size in 1..stream.len() {
            let mut decoder = Decoder::default();
            let mut events = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                events.extend(decoder.push(piece));
            }
            assert_eq!(
                names(&events),
                ["starting", "device-removed", "starting"],
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn bytes_that_are_no_event_are_skipped() {
        fn check(garbage: &[u8]) {
            let mut stream = garbage.to_vec();
            stream.extend_from_slice(STARTING.as_bytes());
            let events = Decoder::default().push(&stream);
            assert_eq!(
                names(&events),
                ["starting"],
                "after {} bytes",
                garbage.len()
            );
        }

        check(b"");
        check(b"\n\n");
        check(b"\n\n\n\n\n");
        check(b"{\"timestamp\": {\"secs\": 1\n\n");
        check(b"\xff\xfe\n\n");
        check(b"[]\n\n");
        check(b"{\"timestamp\":{\"secs\":18446744073709551615,\"nanos\":4294967295},\"source\":1}\n\n");
        let mut overlong = vec![b'x'; MAX_EVENT + 1];
        overlong.extend_from_slice(b"\n\n");
        check(&overlong);
        let mut much = vec![b'x'; 5 * MAX_EVENT];
        much.extend_from_slice(b"\n\n");
        check(&much);
    }

    #[test]
    fn the_buffer_is_bounded() {
        let mut decoder = Decoder::default();
        for _ in 0..10 {
            decoder.push(&vec![b'x'; MAX_EVENT]);
            assert!(decoder.buffer.len() <= MAX_EVENT);
        }
    }

    #[test]
    fn a_time_out_of_range_does_not_panic() {
        let stream = REMOVED
            .replace("\"secs\":2", "\"secs\":18446744073709551615")
            .replace("\"nanos\":0", "\"nanos\":4294967295");
        assert_eq!(Decoder::default().push(stream.as_bytes()).len(), 1);
    }
}
