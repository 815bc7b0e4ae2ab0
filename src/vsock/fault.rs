//! What a guest did wrong: in the evidence of a command, and against the protocol.

use super::OutputStream;
use crate::guest::record::RecordKind;

/// What is wrong with the evidence of a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// A chunk never came: one in the middle, the terminal one, or all of them although the result carries a link or
    /// details, or the guest's hello has announced them.
    #[error("chunk {missing} never came")]
    Gap {
        /// Its number, from 1.
        missing: u64,
    },
    /// A chunk came twice.
    #[error("chunk {seq} came twice")]
    Duplicate {
        /// Its number.
        seq: u64,
    },
    /// A chunk came after one that should have followed it, or after the terminal one, or has the number 0.
    #[error("chunk {seq} came when it was the turn of {expected}")]
    OutOfOrder {
        /// Its number.
        seq: u64,
        /// Whose turn it was.
        expected: u64,
    },
    /// The chunks are all there, and the last link of the result isn't theirs; or that of a run isn't the one of the records
    /// that came.
    #[error("the last link is {computed}, and the guest says {}", claimed.as_deref().unwrap_or("nothing"))]
    WrongLink {
        /// The last link in the result, cut to the length of one; `None` if it has none.
        claimed: Option<String>,
        /// The last link of the chunks that came.
        computed: String,
    },
    /// The chunks and their last link are right, and the texts in the result aren't what they hold.
    #[error("the result's output is not that of its chunks")]
    AnotherOutput,
    /// The result doesn't split the bytes of its chunks into two streams.
    #[error("the result keeps {stdout_kept} and {stderr_kept} bytes, and its chunks hold {found}")]
    KeptElsewhere {
        /// The bytes of standard output that the result says the chunks hold.
        stdout_kept: u64,
        /// The same of standard error.
        stderr_kept: u64,
        /// How many bytes the chunks hold.
        found: u64,
    },
    /// The result says that more of a stream was kept than the tool wrote.
    #[error("the result keeps {kept} bytes of a stream of {total}")]
    KeptAboveTotal {
        /// The bytes that it says were kept.
        kept: u64,
        /// The bytes that it says there were.
        total: u64,
    },
    /// The last link of the records that a run has taken isn't that of the records that were sent to it.
    #[error("{claimed} is not the link of the first {taken} records to the guest")]
    WrongInputLink {
        /// The link in the record that ends the run.
        claimed: String,
        /// How many records the guest says it has taken.
        taken: u64,
    },
    /// The guest says that it has taken more records of a run than were sent, or so few that their link is not kept any more.
    #[error("the guest has taken {taken} records, and {oldest} to {sent} are possible")]
    TakenElsewhere {
        /// How many it says.
        taken: u64,
        /// The fewest whose link is kept; more than 0 where more than 65,535 were sent.
        oldest: u64,
        /// How many were sent.
        sent: u64,
    },
    /// The chunks hold more than a result may tell.
    #[error("the chunks hold more than {limit} bytes")]
    TooMuch {
        /// The most that they may hold, in bytes.
        limit: usize,
    },
}

impl EvidenceError {
    /// The protocol's stable code. It has none of its own for evidence that is whole and proves something else: there,
    /// the tool has failed.
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

/// How a guest broke the protocol. Ids are cut to 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It sent a frame that only the host sends.
    #[error("{frame} goes to the guest only")]
    WrongDirection {
        /// The frame's type.
        frame: &'static str,
    },
    /// It sent a frame on the channel that only a connection of its own has.
    #[error("{frame} has no place on the channel, only on a connection of its own")]
    OutOfPlace {
        /// The frame's type.
        frame: &'static str,
    },
    /// It answered the frame that opens a connection of its own with a frame that doesn't.
    #[error("{frame} came where the connection should have been opened")]
    NotOpened {
        /// The frame's type.
        frame: &'static str,
    },
    /// It sent a record that doesn't belong on such a connection, or not after the ones before it.
    #[error("a {} record has no place here", kind.name())]
    RecordOutOfPlace {
        /// What the record holds.
        kind: RecordKind,
    },
    /// It sent more after the record that ends a connection.
    #[error("bytes came after the record that ends the connection")]
    AfterEnd,
    /// It said that a tool has written more or less to a stream than came, without output being cut, or less although it was.
    #[error("the tool has written {said} bytes to {stream}, and {came} came")]
    Total {
        /// Where to.
        stream: OutputStream,
        /// How many bytes the tool has written, by the guest's word.
        said: u64,
        /// How many came.
        came: u64,
    },
    /// It said that a tool's output was cut, and all of it came.
    #[error("the tool's output was cut, and all of it came")]
    NothingCut,
    /// It answered a request that was not made, or answered twice.
    #[error("{frame} answers {id:?}, which waits for nothing")]
    NeverAsked {
        /// The frame's type.
        frame: &'static str,
        /// The id.
        id: String,
    },
    /// Its answer is of another kind than the request.
    #[error("{frame} for {id:?} is not the kind of answer that was asked for")]
    WrongAnswer {
        /// The frame's type.
        frame: &'static str,
        /// The id.
        id: String,
    },
    /// It used an extension that its hello doesn't list, or listed only after the command's first chunk.
    #[error(
        "{frame} for {id:?} uses the extension {extension}, which the guest's hello has not listed"
    )]
    NotAnnounced {
        /// The frame's type.
        frame: &'static str,
        /// The id.
        id: String,
        /// The extension.
        extension: &'static str,
    },
    /// A chunk doesn't have the length that it says.
    #[error("a chunk of {id:?} has {found} bytes and says {said}")]
    ChunkSize {
        /// The command's id.
        id: String,
        /// What it says.
        said: u32,
        /// What it has.
        found: usize,
    },
}
