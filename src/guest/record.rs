//! The header of a record ([`RecordHeader`]). Records follow the first frames of a connection that carries a run with
//! streams or a transfer of files; see [`protocol`](super::protocol#streams).
//!
//! A record is one byte for its [`RecordKind`], a length (u32, big-endian) of at most [`MAX_RECORD`], and that many
//! bytes.

/// The longest body of a record, in bytes: 256 KiB.
pub const MAX_RECORD: usize = 256 << 10;

/// The longest body of a record that is JSON, in bytes: 64 KiB.
pub const MAX_JSON_RECORD: usize = 64 << 10;

/// The size of a record's header, its kind and its length, in bytes.
pub const RECORD_HEADER: usize = 5;

/// The kind of a record: which direction it goes, and what its body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// To the guest: bytes for the tool's standard input.
    Stdin = 1,
    /// To the guest: the tool's standard input ends. The body is empty.
    EndOfStdin = 2,
    /// To the host: bytes of the tool's standard output.
    Stdout = 3,
    /// To the host: bytes of the tool's standard error.
    Stderr = 4,
    /// To the guest: a [`RunSignal`](super::protocol::RunSignal) for the tool and every process that it started.
    Signal = 5,
    /// To the host, the last record: a [`RunEnd`](super::protocol::RunEnd) or a
    /// [`TransferEnd`](super::protocol::TransferEnd).
    End = 6,
    /// Both ways: bytes of a tar stream.
    Data = 7,
    /// Both ways: the tar stream ends. The body is the stream's SHA-256, 32 bytes.
    EndOfData = 8,
}

impl RecordKind {
    /// Every kind, in the order of the numbers on the wire.
    pub const ALL: [RecordKind; 8] = [
        RecordKind::Stdin,
        RecordKind::EndOfStdin,
        RecordKind::Stdout,
        RecordKind::Stderr,
        RecordKind::Signal,
        RecordKind::End,
        RecordKind::Data,
        RecordKind::EndOfData,
    ];

    /// The variant's name, for messages. On the wire a kind is its number.
    pub const fn name(self) -> &'static str {
        match self {
            RecordKind::Stdin => "Stdin",
            RecordKind::EndOfStdin => "EndOfStdin",
            RecordKind::Stdout => "Stdout",
            RecordKind::Stderr => "Stderr",
            RecordKind::Signal => "Signal",
            RecordKind::End => "End",
            RecordKind::Data => "Data",
            RecordKind::EndOfData => "EndOfData",
        }
    }

    fn from_byte(byte: u8) -> Option<RecordKind> {
        RecordKind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The lengths that a body of this kind may have, in bytes.
    pub const fn lengths(self) -> std::ops::RangeInclusive<usize> {
        match self {
            RecordKind::Stdin | RecordKind::Stdout | RecordKind::Stderr | RecordKind::Data => {
                1..=MAX_RECORD
            }
            RecordKind::EndOfStdin => 0..=0,
            RecordKind::Signal | RecordKind::End => 1..=MAX_JSON_RECORD,
            RecordKind::EndOfData => 32..=32,
        }
    }
}

/// A record's kind and the length of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The record's kind.
    pub kind: RecordKind,
    /// The length of the body that follows, in bytes.
    pub length: usize,
}

impl RecordHeader {
    /// The header of a record with this body.
    ///
    /// # Errors
    ///
    /// [`RecordError::Length`] if `body` is shorter or longer than [`RecordKind::lengths`] allows.
    pub fn of(kind: RecordKind, body: &[u8]) -> Result<RecordHeader, RecordError> {
        RecordHeader {
            kind,
            length: body.len(),
        }
        .checked()
    }

    /// Reads a header. The caller checks whether a record of this kind may come at this place.
    ///
    /// # Errors
    ///
    /// [`RecordError::Kind`] or [`RecordError::Length`]. The connection is unusable afterwards, since the start of the
    /// next record is unknown.
    pub fn decode(bytes: [u8; RECORD_HEADER]) -> Result<RecordHeader, RecordError> {
        let [kind, length @ ..] = bytes;
        RecordHeader {
            kind: RecordKind::from_byte(kind).ok_or(RecordError::Kind { kind })?,
            length: u32::from_be_bytes(length) as usize,
        }
        .checked()
    }

    fn checked(self) -> Result<RecordHeader, RecordError> {
        match self.kind.lengths().contains(&self.length) {
            true => Ok(self),
            false => Err(RecordError::Length {
                kind: self.kind,
                length: self.length,
            }),
        }
    }

    /// The header as it stands on the wire.
    pub fn encode(self) -> [u8; RECORD_HEADER] {
        let [a, b, c, d] = (self.length as u32).to_be_bytes();
        [self.kind as u8, a, b, c, d]
    }
}

/// A record's header can't be read: its kind is unknown or its length is out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The kind is none that this build knows.
    #[error("a record is of the kind {kind}, which is not known")]
    Kind {
        /// The byte in the place of the kind.
        kind: u8,
    },
    /// The length is none that [`RecordKind::lengths`] allows for the kind.
    #[error("a {} record has {length} bytes, not {} to {}", kind.name(), kind.lengths().start(), kind.lengths().end())]
    Length {
        /// The record's kind.
        kind: RecordKind,
        /// The announced length, in bytes.
        length: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_written() {
        for kind in RecordKind::ALL {
            for length in [*kind.lengths().start(), *kind.lengths().end()] {
                let header = RecordHeader::of(kind, &vec![0; length]).unwrap();
                assert_eq!(RecordHeader::decode(header.encode()), Ok(header));
            }
        }
        let header = RecordHeader::of(RecordKind::Stderr, b"abc").unwrap();
        assert_eq!(header.encode(), [4, 0, 0, 0, 3]);
    }

    #[test]
    fn kinds_and_lengths_out_of_bounds_are_refused() {
        for kind in [0, 9, 0xff] {
            assert_eq!(
                RecordHeader::decode([kind, 0, 0, 0, 1]),
                Err(RecordError::Kind { kind })
            );
        }
        #[track_caller]
        fn check(kind: RecordKind, length: u32) {
            let [a, b, c, d] = length.to_be_bytes();
            let length = length as usize;
            let expected = Err(RecordError::Length { kind, length });
            assert_eq!(RecordHeader::decode([kind as u8, a, b, c, d]), expected);
        }
        check(RecordKind::Stdout, 0);
        check(RecordKind::Stdout, MAX_RECORD as u32 + 1);
        check(RecordKind::Data, u32::MAX);
        check(RecordKind::End, MAX_JSON_RECORD as u32 + 1);
        check(RecordKind::EndOfStdin, 1);
        check(RecordKind::EndOfData, 31);
        check(RecordKind::EndOfData, 33);
    }
}
