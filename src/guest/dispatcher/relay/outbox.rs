//! [`Outbox`]: the record that is being sent to the host.

use std::fs::File;
use std::io::{self, Read};

use crate::guest::dispatcher::connection::Connection;
use crate::guest::protocol::RunChain;
use crate::guest::record::{MAX_RECORD, RECORD_HEADER, RecordError, RecordHeader, RecordKind};

/// One record that is being sent to the host, in a buffer that all records of the run reuse.
pub(super) struct Outbox {
    buffer: Vec<u8>,
    /// How many bytes of `buffer` belong to the record.
    filled: usize,
    /// How many of these bytes were sent.
    sent: usize,
    /// The chain of the records to the host.
    chain: RunChain,
}

impl Outbox {
    pub(super) fn new(chain: RunChain) -> Outbox {
        Outbox {
            buffer: vec![0; RECORD_HEADER + MAX_RECORD],
            filled: 0,
            sent: 0,
            chain,
        }
    }

    /// Whether the record was sent in full, so that there is room for the next one.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.filled
    }

    /// Reads a pipe once, at most `most` bytes, and makes a record of the first `allowance` bytes. Returns how many
    /// bytes were read: 0 if the pipe is empty or at its end. A pipe at its end is closed.
    pub(super) fn read(
        &mut self,
        kind: RecordKind,
        pipe: &mut Option<File>,
        most: u64,
        allowance: u64,
    ) -> io::Result<usize> {
        let Some(open) = pipe else {
            return Ok(0);
        };
        let most = usize::try_from(most).map_or(MAX_RECORD, |most| most.min(MAX_RECORD));
        let read = match open.read(&mut self.buffer[RECORD_HEADER..][..most]) {
            Ok(0) => {
                *pipe = None;
                return Ok(0);
            }
            Ok(read) => read,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                    _ => Err(error),
                };
            }
        };
        let length = usize::try_from(allowance).map_or(read, |allowance| read.min(allowance));
        if length > 0 {
            self.put(RecordHeader { kind, length });
            let body = &self.buffer[RECORD_HEADER..self.filled];
            self.chain.append(kind, body);
        }
        Ok(read)
    }

    /// Makes a record that isn't added to the chain.
    pub(super) fn write(&mut self, kind: RecordKind, body: &[u8]) -> Result<(), RecordError> {
        let header = RecordHeader::of(kind, body)?;
        self.buffer[RECORD_HEADER..][..body.len()].copy_from_slice(body);
        self.put(header);
        Ok(())
    }

    /// Puts the header before a body that is in the buffer already.
    fn put(&mut self, header: RecordHeader) {
        self.buffer[..RECORD_HEADER].copy_from_slice(&header.encode());
        self.filled = RECORD_HEADER + header.length;
        self.sent = 0;
    }

    /// Sends as many bytes as the connection takes now. Returns whether any were sent.
    pub(super) fn send(&mut self, connection: &Connection) -> io::Result<bool> {
        let before = self.sent;
        while !self.is_empty() {
            match connection.try_write(&self.buffer[self.sent..self.filled])? {
                Some(sent) => self.sent += sent,
                None => break,
            }
        }
        Ok(self.sent > before)
    }

    /// The last link of the chain.
    pub(super) fn link(&self) -> [u8; 32] {
        self.chain.link()
    }
}
