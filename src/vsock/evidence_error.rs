//! The faults of a guest: [`EvidenceError`] for wrong evidence of a command, [`Violation`] for a breach of the
//! protocol.

use super::OutputStream;
use crate::guest::record::RecordKind;

/// What is wrong with the evidence of a command or of a run with streams.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// A chunk never came: one in the middle; the terminal one; or all of them, although the result has a link or
    /// details, or the guest's hello lists [`Extension::Evidence`](crate::guest::protocol::Extension::Evidence).
    #[error("chunk {missing} never came")]
    Gap {
        /// The number of the first missing chunk, from 1.
        missing: u64,
    },
    /// A chunk came twice.
    #[error("chunk {seq} came twice")]
    Duplicate {
        /// The chunk's number.
        seq: u64,
    },
    /// A chunk came after a later one or after the terminal one, or has the number 0.
    #[error("chunk {seq} came when chunk {expected} was expected")]
    OutOfOrder {
        /// The chunk's number.
        seq: u64,
        /// The number of the next chunk in order.
        expected: u64,
    },
    /// All chunks have come, but the last link in the result isn't theirs. Or the last link to the host in a run's end
    /// isn't that of the records that came.
    #[error("the host computed the last link {computed}, and the guest states {}", claimed.as_deref().unwrap_or("none"))]
    WrongLink {
        /// The link that the guest states, cut to the length of a link; `None` if it states none.
        claimed: Option<String>,
        /// The link that the host computed.
        computed: String,
    },
    /// The chunks and their last link are right, but the texts in the result aren't those of the chunks.
    #[error("the result's output is not that of its chunks")]
    AnotherOutput,
    /// The kept bytes of both streams in the result's details don't add up to the bytes of the chunks.
    #[error(
        "the result states {stdout_kept} and {stderr_kept} kept bytes, and its chunks hold {found}"
    )]
    KeptElsewhere {
        /// The number of bytes of standard output in the chunks, as the result states it.
        stdout_kept: u64,
        /// The number of bytes of standard error in the chunks, as the result states it.
        stderr_kept: u64,
        /// The number of bytes in the chunks.
        found: u64,
    },
    /// The result states more kept bytes of a stream than the tool wrote.
    #[error("the result states {kept} kept bytes of a stream of {total} bytes")]
    KeptAboveTotal {
        /// The number of kept bytes, as the result states it.
        kept: u64,
        /// The number of written bytes, as the result states it.
        total: u64,
    },
    /// The last link to the guest in a run's end isn't that of the records that the host has sent.
    #[error("{claimed} is not the link of the first {taken} records to the guest")]
    WrongInputLink {
        /// The link in the run's end.
        claimed: String,
        /// How many records the guest has processed, as the run's end states it.
        taken: u64,
    },
    /// A run's end states that the guest has processed more records than the host has sent, or so few that the host
    /// doesn't keep their link any more.
    #[error(
        "the guest states that it has processed {taken} records; {oldest} to {sent} are possible"
    )]
    TakenElsewhere {
        /// How many records the guest has processed, as the run's end states it.
        taken: u64,
        /// The smallest number of records whose link is kept; above 0 if more than 65,535 records were sent.
        oldest: u64,
        /// How many records the host has sent.
        sent: u64,
    },
    /// The chunks of a command hold more bytes than a result can have.
    #[error("the chunks hold more than {limit} bytes")]
    TooMuch {
        /// The most that they may hold, in bytes.
        limit: usize,
    },
}

impl EvidenceError {
    /// The error's stable code. The protocol has no code for complete evidence that disproves the result, so this is
    /// `SANDBOX_TOOL_ERROR` then.
    pub(super) fn code(&self) -> &'static str {
        match self {
            EvidenceError::Gap { .. } => "SANDBOX_EVIDENCE_GAP",
            EvidenceError::Duplicate { .. } => "SANDBOX_EVIDENCE_DUPLICATE",
            EvidenceError::OutOfOrder { .. } => "SANDBOX_EVIDENCE_OUT_OF_ORDER",
            EvidenceError::WrongLink { .. }
            | EvidenceError::WrongInputLink { .. }
            | EvidenceError::TakenElsewhere { .. }
            | EvidenceError::AnotherOutput
            | EvidenceError::KeptElsewhere { .. }
            | EvidenceError::KeptAboveTotal { .. }
            | EvidenceError::TooMuch { .. } => "SANDBOX_TOOL_ERROR",
        }
    }
}

/// How a guest broke the protocol. Ids are made lines of at most 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The guest sent a frame that only the host sends.
    #[error("a {frame} frame came from the guest, and only a host sends such frames")]
    WrongDirection {
        /// The frame's type.
        frame: &'static str,
    },
    /// The guest sent a frame on the channel that is allowed only on the connection of a run or transfer.
    #[error(
        "a {frame} frame came on the channel; it is allowed only on the connection of a run or transfer"
    )]
    OutOfPlace {
        /// The frame's type.
        frame: &'static str,
    },
    /// The guest answered the frame that opens a run or transfer with a frame that is neither `Opened` nor
    /// `ErrorEvent`.
    #[error("a {frame} frame came in answer to the frame that opens a run or transfer")]
    NotOpened {
        /// The frame's type.
        frame: &'static str,
    },
    /// The guest sent a record that isn't allowed on this connection, or not after the records before it.
    #[error("a {} record is not allowed here", kind.name())]
    RecordOutOfPlace {
        /// The record's kind.
        kind: RecordKind,
    },
    /// The guest sent further bytes after the record that ends the connection.
    #[error("bytes came after the record that ends the connection")]
    AfterEnd,
    /// A run's end states a total that contradicts the output that came: another number of bytes although no output was
    /// cut, or a smaller number although some was.
    #[error("the guest states that the tool wrote {said} bytes to {stream}, and {came} bytes came")]
    Total {
        /// The stream.
        stream: OutputStream,
        /// How many bytes the tool wrote, as the guest states it.
        said: u64,
        /// How many bytes came.
        came: u64,
    },
    /// A run's end states that output was cut, although all of it came.
    #[error("the guest states that the tool's output was cut, and all of it came")]
    NothingCut,
    /// The guest answered a request that was never made, or answered a request twice.
    #[error("a {frame} frame answers {id:?}, and no such request waits for an answer")]
    NeverAsked {
        /// The frame's type.
        frame: &'static str,
        /// The id in the frame.
        id: String,
    },
    /// The guest's answer is of another kind than the request.
    #[error("a {frame} frame for {id:?} is not the kind of answer that was asked for")]
    WrongAnswer {
        /// The frame's type.
        frame: &'static str,
        /// The id in the frame.
        id: String,
    },
    /// The guest used an extension that its hello doesn't list, or that it listed only after the command's first chunk.
    #[error(
        "a {frame} frame for {id:?} uses the extension {extension}, which the guest's hello has not listed"
    )]
    NotAnnounced {
        /// The frame's type.
        frame: &'static str,
        /// The id.
        id: String,
        /// The extension.
        extension: &'static str,
    },
    /// A chunk has another length than its `chunk_size` states.
    #[error("a chunk of {id:?} has {found} bytes and states {said}")]
    ChunkSize {
        /// The command's id.
        id: String,
        /// The stated length, in bytes.
        said: u32,
        /// The length of the data, in bytes.
        found: usize,
    },
}
