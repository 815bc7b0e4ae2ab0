//! [`Inbox`]: the read buffer of a run, from which whole records are taken.

use std::io;

use crate::guest::dispatcher::ServeError;
use crate::guest::dispatcher::connection::Connection;
use crate::guest::record::{RECORD_HEADER, RecordHeader, RecordKind};

/// The least free space in the buffer for a read, in bytes.
const STEP: usize = 16 * 1024;

/// Bytes of the host that weren't taken as records yet. The buffer grows to the size of one record, which is bounded.
#[derive(Debug)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    /// The index in `buffer` of the first byte that wasn't taken.
    start: usize,
    /// The index in `buffer` after the last byte that was read.
    end: usize,
}

impl Inbox {
    /// An inbox that begins with bytes that were read already.
    pub(super) fn new(received: Vec<u8>) -> Inbox {
        Inbox {
            start: 0,
            end: received.len(),
            buffer: received,
        }
    }

    /// Reads the connection once, without blocking. Returns false at the end of the connection. The caller must have
    /// taken all [whole records](Self::next_record) before.
    pub(super) fn fill(&mut self, connection: &Connection) -> io::Result<bool> {
        let held = &self.buffer[self.start..self.end];
        let record = match held
            .first_chunk()
            .map(|header| RecordHeader::decode(*header))
        {
            Some(Ok(header)) => RECORD_HEADER + header.length,
            Some(Err(_)) | None => 0,
        };
        let room = record.saturating_sub(held.len()).max(STEP);
        if self.buffer.len() - self.end < room {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let least = self.end + room;
            self.buffer.resize(least.max(self.buffer.len()), 0);
        }
        match connection.try_read(&mut self.buffer[self.end..])? {
            Some(0) => Ok(false),
            Some(read) => {
                self.end += read;
                Ok(true)
            }
            None => Ok(true),
        }
    }

    /// Takes the next record if it has arrived in full. A record that a host may not send in a run is an error as soon
    /// as its header has arrived.
    pub(super) fn next_record(&mut self) -> Result<Option<(RecordKind, &[u8])>, ServeError> {
        let held = &self.buffer[self.start..self.end];
        let Some((header, rest)) = held.split_first_chunk() else {
            return Ok(None);
        };
        let RecordHeader { kind, length } = RecordHeader::decode(*header)?;
        match kind {
            RecordKind::Stdin | RecordKind::EndOfStdin | RecordKind::Signal => {}
            RecordKind::Stdout
            | RecordKind::Stderr
            | RecordKind::End
            | RecordKind::Data
            | RecordKind::EndOfData => return Err(ServeError::UnexpectedRecord { kind }),
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.start += RECORD_HEADER + length;
        Ok(Some((kind, &rest[..length])))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::guest::record::MAX_RECORD;

    /// Takes all records of `sent`, which arrives in pieces of `step` bytes.
    fn records(
        received: &[u8],
        sent: &[u8],
        step: usize,
    ) -> Result<Vec<(RecordKind, Vec<u8>)>, ServeError> {
        let (mut host, guest) = UnixStream::pair().unwrap();
        let connection = Connection::new(guest.into()).unwrap();
        let mut inbox = Inbox::new(received.to_vec());
        let mut records = Vec::new();
        for piece in sent.chunks(step) {
            host.write_all(piece).unwrap();
            while let Some((kind, body)) = inbox.next_record()? {
                records.push((kind, body.to_vec()));
            }
            assert!(inbox.fill(&connection).unwrap());
        }
        drop(host);
        loop {
            while let Some((kind, body)) = inbox.next_record()? {
                records.push((kind, body.to_vec()));
            }
            if !inbox.fill(&connection).unwrap() {
                let most = MAX_RECORD + 2 * STEP;
                assert!(inbox.buffer.len() <= most, "{}", inbox.buffer.len());
                return Ok(records);
            }
        }
    }

    fn record(kind: RecordKind, body: &[u8]) -> Vec<u8> {
        let header = RecordHeader::of(kind, body).unwrap();
        [&header.encode()[..], body].concat()
    }

    #[test]
    fn records_come_whole_however_their_bytes_arrive() {
        let large: Vec<u8> = (0..=u8::MAX).cycle().take(MAX_RECORD).collect();
        let sent = [
            (RecordKind::Stdin, b"a".to_vec()),
            (RecordKind::Stdin, large[..70_000].to_vec()),
            (RecordKind::Signal, b"\"kill\"".to_vec()),
            (RecordKind::EndOfStdin, Vec::new()),
            (RecordKind::Stdin, large.clone()),
            (RecordKind::Stdin, large),
        ];
        let bytes: Vec<u8> = sent
            .iter()
            .flat_map(|(kind, body)| record(*kind, body))
            .collect();
        for (step, received) in [(1000, 0), (1000, 3), (7777, 100), (65_536, 8000)] {
            let (received, rest) = bytes.split_at(received);
            assert!(records(received, rest, step).unwrap() == sent, "{step}");
        }
    }

    #[test]
    fn a_record_that_no_run_accepts_is_refused_at_its_header() {
        let check = |bytes: &[u8], expected: fn(&ServeError) -> bool| {
            let error = records(b"", bytes, 1000).unwrap_err();
            assert!(expected(&error), "{bytes:?}: {error:?}");
        };
        check(&[1, 0xff, 0xff, 0xff, 0xff], |e| {
            matches!(e, ServeError::Record(_))
        });
        check(&[1, 0, 0, 0, 0], |e| matches!(e, ServeError::Record(_)));
        check(&[2, 0, 0, 0, 1], |e| matches!(e, ServeError::Record(_)));
        check(&[0, 0, 0, 0, 1], |e| matches!(e, ServeError::Record(_)));
        check(&[9, 0, 0, 0, 1], |e| matches!(e, ServeError::Record(_)));
        for kind in [3, 4, 6, 7] {
            check(&[kind, 0, 0, 1, 0], |e| {
                matches!(e, ServeError::UnexpectedRecord { .. })
            });
        }
        check(&[8, 0, 0, 0, 32], |e| {
            matches!(e, ServeError::UnexpectedRecord { .. })
        });
        assert!(records(b"", &[1, 0, 0], 1).unwrap().is_empty());
    }
}
