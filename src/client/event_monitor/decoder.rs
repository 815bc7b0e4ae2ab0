//! Cuts the bytes of an event monitor into events: JSON objects, pretty-printed, with a blank line after each.

use std::mem;

use super::MonitorEvent;
use crate::causes::Causes;
use crate::sanitize;

/// How long an event may be, in bytes. Those of v53.0 have less than 1 KiB.
pub(super) const MAX_EVENT: usize = 16 * 1024;

/// How much of the parser's message is kept, in characters.
const REASON: usize = 200;

/// Bytes of an event monitor that are no event.
///
/// They are left out: a VMM tears an event when its pipe is full, and the next blank line is where the stream makes
/// sense again.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeftOut {
    /// No blank line came within [`MAX_EVENT`] bytes.
    #[error("an event is longer than {MAX_EVENT} bytes")]
    TooLong,
    /// The bytes before the blank line aren't an event.
    #[error("{length} bytes are no event: {reason}")]
    NotAnEvent {
        /// In bytes.
        length: usize,
        /// The parser's message.
        reason: String,
    },
}

/// Holds at most twice [`MAX_EVENT`] bytes, whatever comes.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// So many bytes of the buffer belong to events that were given out.
    taken: usize,
    /// No blank line begins before this place and after the taken bytes.
    searched: usize,
    /// The event that is being read is too long; its bytes are dropped up to the next blank line.
    overlong: bool,
}

impl Decoder {
    /// Takes bytes of any length, and calls `each` for every event that they complete.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Result<MonitorEvent, LeftOut>),
    ) {
        for piece in bytes.chunks(MAX_EVENT) {
            self.feed(piece);
            while let Some(event) = self.next() {
                each(event);
            }
        }
    }

    /// Takes at most [`MAX_EVENT`] bytes, after [`next`](Self::next) has said that there is no further event.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next event that is there as a whole.
    pub(super) fn next(&mut self) -> Option<Result<MonitorEvent, LeftOut>> {
        // JSON has no raw newline inside a string: two in a row are always the end of an event.
        while let Some(at) = blank_line(&self.buffer[self.searched..]) {
            let end = self.searched + at;
            let event = match mem::take(&mut self.overlong) {
                true => None,
                false => decode(&self.buffer[self.taken..end]),
            };
            self.taken = end + 2;
            self.searched = self.taken;
            if event.is_some() {
                return event;
            }
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        // The last byte may be the first half of the blank line.
        let last = self.buffer.len().saturating_sub(1);
        self.searched = last;
        if self.overlong || self.buffer.len() > MAX_EVENT + 1 {
            self.buffer.drain(..last);
            self.searched = 0;
            if !mem::replace(&mut self.overlong, true) {
                return Some(Err(LeftOut::TooLong));
            }
        }
        None
    }

    /// The event that the last bytes make when no further byte follows: it may lack its blank line.
    pub(super) fn finish(&mut self) -> Option<Result<MonitorEvent, LeftOut>> {
        let rest = mem::take(self);
        match rest.overlong {
            true => None,
            false => decode(&rest.buffer[rest.taken..]),
        }
    }
}

fn blank_line(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\n\n")
}

fn decode(bytes: &[u8]) -> Option<Result<MonitorEvent, LeftOut>> {
    if bytes.trim_ascii().is_empty() {
        return None;
    }
    if bytes.len() > MAX_EVENT {
        return Some(Err(LeftOut::TooLong));
    }
    let event = serde_json::from_slice(bytes).map(MonitorEvent::sanitized);
    Some(event.map_err(|error| LeftOut::NotAnEvent {
        length: bytes.len(),
        reason: sanitize::line(&Causes(&error).to_string(), REASON),
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Decoder, LeftOut, MAX_EVENT, MonitorEvent};

    const STARTING: &str = "{\n  \"timestamp\": {\n    \"secs\": 0,\n    \"nanos\": 5\n  },\n  \
        \"source\": \"vmm\",\n  \"event\": \"starting\",\n  \"properties\": null\n}\n\n";
    const REMOVED: &str = "{\"timestamp\":{\"secs\":2,\"nanos\":0},\"source\":\"vm\",\
        \"event\":\"device-removed\",\"properties\":{\"id\":\"_disk0\"}}\n\n";

    /// The events of a stream in pieces of this length, and what was left out of it.
    fn read(stream: &[u8], piece: usize) -> (Vec<MonitorEvent>, Vec<LeftOut>) {
        let mut decoder = Decoder::default();
        let (mut events, mut left_out) = (Vec::new(), Vec::new());
        for piece in stream.chunks(piece.max(1)) {
            decoder.push(piece, |event| match event {
                Ok(event) => events.push(event),
                Err(part) => left_out.push(part),
            });
        }
        (events, left_out)
    }

    fn names(events: &[MonitorEvent]) -> Vec<&str> {
        events.iter().map(|event| event.event.as_str()).collect()
    }

    #[test]
    fn an_event_is_read_whole() {
        let stream = format!("{STARTING}{REMOVED}");
        let (events, left_out) = read(stream.as_bytes(), stream.len());
        assert_eq!(names(&events), ["starting", "device-removed"]);
        assert_eq!(left_out, []);
        assert_eq!(events[0].timestamp, Duration::from_nanos(5));
        assert_eq!(events[0].source, "vmm");
        assert!(events[0].properties.is_empty());
        assert_eq!(events[1].properties["id"], "_disk0");
    }

    #[test]
    fn any_split_gives_the_same_events() {
        let stream = format!("{STARTING}{REMOVED}{STARTING}");
        for size in 1..stream.len() {
            let (events, _) = read(stream.as_bytes(), size);
            assert_eq!(
                names(&events),
                ["starting", "device-removed", "starting"],
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn what_is_no_event_is_left_out_and_the_next_one_is_read() {
        /// `left_out` says for each part its length, or nothing where it is too long.
        #[track_caller]
        fn check(garbage: &[u8], left_out: &[Option<usize>]) {
            let mut stream = garbage.to_vec();
            stream.extend_from_slice(STARTING.as_bytes());
            for piece in [1, 7, MAX_EVENT, stream.len()] {
                let (events, parts) = read(&stream, piece);
                let parts: Vec<Option<usize>> = parts
                    .iter()
                    .map(|part| match part {
                        LeftOut::TooLong => None,
                        LeftOut::NotAnEvent { length, .. } => Some(*length),
                    })
                    .collect();
                let what = format!("after {} bytes in pieces of {piece}", garbage.len());
                assert_eq!(
                    (names(&events), &*parts),
                    (vec!["starting"], left_out),
                    "{what}"
                );
            }
        }

        check(b"", &[]);
        check(b"\n\n", &[]);
        check(b"\n\n\n\n\n", &[]);
        check(b"{\"timestamp\": {\"secs\": 1\n\n", &[Some(24)]);
        check(b"\xff\xfe\n\n", &[Some(2)]);
        check(b"[]\n\n", &[Some(2)]);
        check(b"{\"timestamp\":{\"secs\":18446744073709551615,\"nanos\":4294967295},\"source\":1}\n\n", &[Some(73)]);
        let long = |length: usize| {
            let mut long = vec![b'x'; length];
            long.extend_from_slice(b"\n\n");
            long
        };
        check(&long(MAX_EVENT), &[Some(MAX_EVENT)]);
        check(&long(MAX_EVENT + 1), &[None]);
        check(&long(2 * MAX_EVENT), &[None]);
        check(&long(5 * MAX_EVENT), &[None]);
        check(&long(5 * MAX_EVENT).repeat(2), &[None, None]);
    }

    #[test]
    fn what_is_not_an_event_is_told_with_a_reason_that_is_safe_to_show() {
        let (_, left_out) = read(b"{\"\x1b[2J\": 1}\n\n", 100);
        let [LeftOut::NotAnEvent { reason, .. }] = &*left_out else {
            panic!("{left_out:?}");
        };
        assert!(!reason.is_empty() && !reason.chars().any(char::is_control));
    }

    #[test]
    fn the_last_event_needs_no_blank_line() {
        #[track_caller]
        fn check(stream: &str, last: Option<&str>) {
            let mut decoder = Decoder::default();
            decoder.push(stream.as_bytes(), drop);
            let event = decoder.finish().map(|event| event.map(|event| event.event));
            assert_eq!(
                event.map(Result::ok),
                last.map(|name| Some(name.to_owned()))
            );
            assert!(decoder.finish().is_none());
        }
        check(STARTING, None);
        check(
            &format!("{STARTING}{}", REMOVED.trim_end()),
            Some("device-removed"),
        );
        check(&format!("{REMOVED}\n"), None);
        check(&"x".repeat(3 * MAX_EVENT), None);
        let mut decoder = Decoder::default();
        decoder.push(b"{\"timestamp\"", drop);
        assert!(matches!(
            decoder.finish(),
            Some(Err(LeftOut::NotAnEvent { length: 12, .. }))
        ));
    }

    #[test]
    fn the_buffer_is_bounded() {
        let mut decoder = Decoder::default();
        for _ in 0..10 {
            decoder.push(&vec![b'x'; MAX_EVENT], drop);
            assert!(decoder.buffer.len() <= MAX_EVENT);
        }
        assert!(decoder.buffer.capacity() <= 4 * MAX_EVENT);
    }

    #[test]
    fn a_time_out_of_range_is_no_panic() {
        let stream = REMOVED
            .replace("\"secs\":2", "\"secs\":18446744073709551615")
            .replace("\"nanos\":0", "\"nanos\":4294967295");
        assert_eq!(read(stream.as_bytes(), stream.len()).0.len(), 1);
    }
}
