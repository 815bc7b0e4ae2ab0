//! The frames between host and guest: what crosses the channel, as types.
//!
//! A frame's body is one JSON object whose `type` names the variant of [`Frame`]. Objects are closed: a field that
//! the frame doesn't have is refused, and so are an array in place of an object, a repeated field, and a
//! value outside its range. Decoding allocates for what a frame may hold and for nothing else: a hostile peer gets no more
//! memory out of the host than the bytes that it sent. How large a frame of each type the host takes is
//! [`FrameType::limit_at_host`]; the type is read before anything else is decoded.
//!
//! # Streams
//!
//! A run with streams and a transfer of files have a connection of their own. Its first frame is an [`OpenRun`], an
//! [`OpenPush`] or an [`OpenPull`]; the guest answers with [`Opened`], and from there on only
//! [records](super::record) cross it, or with an [`ErrorEvent`], and closes it.
//!
//! | connection | to the guest | to the host |
//! |---|---|---|
//! | run | `Stdin`, `EndOfStdin`, `Signal` ([`RunSignal`]) | `Stdout`, `Stderr`, at last `End` ([`RunEnd`]) |
//! | push | `Data`, `EndOfData` | at last `End` ([`TransferEnd`]) |
//! | pull | nothing | `Data`, `EndOfData`, at last `End` ([`TransferEnd`]) |
//!
//! Any other record, or one out of this order, ends the connection and is an error of this connection alone. A host that
//! closes a connection cancels its run or its transfer.
//!
//! A guest takes records while less than [`MAX_RECORD`](super::record::MAX_RECORD) bytes of standard input wait for the tool to
//! read them: a signal gets past that, and waits behind more. What comes after the tool's end is not taken.
//!
//! # Warm runs
//!
//! A [`WarmDispatch`](Frame::WarmDispatch) has the fields of a [`ToolDispatch`] and the same answer: chunks of evidence and a
//! [`ToolResult`]. Its tool writes to a layer in memory, which is removed with everything that runs on it before the result is
//! sent. A guest runs one at a time, and refuses a second. One that couldn't make or remove the layer says so with the outcome
//! [`GuestFailed`](ToolOutcomeKind::GuestFailed), whatever the tool did.

mod closed;
mod evidence;
mod extension;
mod frame_type;
mod json_text;
mod query;
mod reset;
mod run_chain;
mod stream;
mod tool;
mod tool_result;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sanitize;
use closed::Tagged;

pub use crate::archive::TransferLimits;
pub use evidence::EvidenceChain;
pub use extension::{Extension, Hello, Imprint, Imprinted, Renew, Renewed, Seed};
pub use frame_type::FrameType;
pub use query::{
    GuestProcess, GuestQuery, GuestResponse, MemUsage, OpenFdCount, ProcessList, QueryKind,
    QueryResult,
};
pub use reset::{
    DivergenceAction, ResetAck, ResetReason, ResetSignal, VerificationDetails, VmmApiState,
};
pub use run_chain::{Direction, RunChain};
pub use stream::{
    JsonRecord, MAX_ENVIRONMENT, OpenPull, OpenPush, OpenRun, Opened, RunEnd, RunOutcome,
    RunSignal, StdinMode, TransferEnd,
};
pub use tool::{EvidenceChunk, ToolDispatch, ToolName, ToolNameError};
pub use tool_result::{
    EXIT_DEADLINE, EXIT_GUEST_ERROR, EXIT_SIGNALLED, EXIT_UNKNOWN_TOOL, MAX_OUTPUT, ResultDetails,
    ToolOutcomeKind, ToolResult,
};

/// The version of the protocol that a [`Hello`] names.
pub const PROTOCOL_VERSION: u32 = 1;

/// The vsock port that the guest listens on, unless configured otherwise.
pub const DEFAULT_PORT: u32 = 1024;

/// The longest body of a frame, in bytes: 16 MiB.
pub const MAX_FRAME: usize = 16 << 20;

/// The most bytes of a tool's output in one [`EvidenceChunk`], before base64: 1 MiB.
pub const MAX_EVIDENCE_CHUNK: usize = 1 << 20;

/// The most processes in one [`ProcessList`].
pub const MAX_PROCESSES: usize = 100;

/// How long the layer of a warm run may take to be removed, once its tool has ended: the guest's result comes that much later
/// at most.
pub const LAYER_REMOVAL: Duration = Duration::from_secs(10);

/// The longest tool name, in characters.
pub const MAX_TOOL_NAME: usize = 256;

/// Everything that crosses the channel.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type")]
pub enum Frame {
    /// To the guest: run a tool.
    ToolDispatch(ToolDispatch),
    /// To the host: how the tool ended.
    ToolResult(ToolResult),
    /// To the host: a piece of the tool's output.
    EvidenceChunk(EvidenceChunk),
    /// To the guest: a reading is wanted.
    GuestQuery(GuestQuery),
    /// To the host: the reading.
    GuestResponse(GuestResponse),
    /// To the guest: a reset was made.
    ResetSignal(ResetSignal),
    /// To the host: what the guest says of the reset.
    ResetAck(ResetAck),
    /// To the host: something went wrong that belongs to no request.
    ErrorEvent(ErrorEvent),
    /// Both ways: what the sender can do.
    Hello(Hello),
    /// To the guest: remember a nonce.
    Imprint(Imprint),
    /// To the host: the nonce is remembered.
    Imprinted(Imprinted),
    /// To the guest: renew randomness and clock after a restore.
    Renew(Renew),
    /// To the host: what was renewed.
    Renewed(Renewed),
    /// To the guest, the first frame of a connection of its own: run a tool with streams.
    OpenRun(OpenRun),
    /// To the guest, the first frame of a connection of its own: take files.
    OpenPush(OpenPush),
    /// To the guest, the first frame of a connection of its own: give files.
    OpenPull(OpenPull),
    /// To the host: records follow on this connection.
    Opened(Opened),
    /// To the guest: run a tool, and throw away what it writes. Needs [`Extension::Warm`].
    WarmDispatch(ToolDispatch),
}

/// Something went wrong in the guest that belongs to no request.
///
/// An old guest also answers with it to a frame type that it doesn't know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorEvent {
    /// The error's stable code.
    pub code: String,
    /// The same for people.
    pub message: String,
}

impl Frame {
    /// The frame's type.
    pub fn frame_type(&self) -> FrameType {
        match self {
            Frame::ToolDispatch(_) => FrameType::ToolDispatch,
            Frame::ToolResult(_) => FrameType::ToolResult,
            Frame::EvidenceChunk(_) => FrameType::EvidenceChunk,
            Frame::GuestQuery(_) => FrameType::GuestQuery,
            Frame::GuestResponse(_) => FrameType::GuestResponse,
            Frame::ResetSignal(_) => FrameType::ResetSignal,
            Frame::ResetAck(_) => FrameType::ResetAck,
            Frame::ErrorEvent(_) => FrameType::ErrorEvent,
            Frame::Hello(_) => FrameType::Hello,
            Frame::Imprint(_) => FrameType::Imprint,
            Frame::Imprinted(_) => FrameType::Imprinted,
            Frame::Renew(_) => FrameType::Renew,
            Frame::Renewed(_) => FrameType::Renewed,
            Frame::OpenRun(_) => FrameType::OpenRun,
            Frame::OpenPush(_) => FrameType::OpenPush,
            Frame::OpenPull(_) => FrameType::OpenPull,
            Frame::Opened(_) => FrameType::Opened,
            Frame::WarmDispatch(_) => FrameType::WarmDispatch,
        }
    }

    /// The frame's `type` on the wire.
    pub fn name(&self) -> &'static str {
        self.frame_type().name()
    }

    /// About how many bytes its texts and lists hold.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Frame::ToolResult(result) => {
                let link = result.evidence_hash.as_ref().map_or(0, String::len);
                result.command_id.len() + result.stdout.len() + result.stderr.len() + link
            }
            Frame::EvidenceChunk(chunk) => chunk.command_id.len() + chunk.chunk_data.len(),
            Frame::GuestResponse(response) => response.result.weight(),
            Frame::ErrorEvent(event) => event.code.len() + event.message.len(),
            Frame::ResetAck(ack) => ack.reset_id.len() + 1024,
            Frame::Hello(hello) => hello.weight(),
            Frame::Renewed(renewed) => renewed.nonce.as_ref().map_or(0, String::len),
            // What the host sends is its own.
            Frame::ToolDispatch(_)
            | Frame::GuestQuery(_)
            | Frame::ResetSignal(_)
            | Frame::Imprint(_)
            | Frame::Imprinted(_)
            | Frame::Renew(_)
            | Frame::OpenRun(_)
            | Frame::OpenPush(_)
            | Frame::OpenPull(_)
            | Frame::Opened(_)
            | Frame::WarmDispatch(_) => 0,
        }
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says which of the rules the body breaks.
    pub fn decode(body: &[u8]) -> Result<Frame, DecodeError> {
        let text = std::str::from_utf8(body)?;
        Frame::decode_as(FrameType::of(text)?, text)
    }

    /// Reads the body of a frame whose type was read before.
    pub(crate) fn decode_as(frame_type: FrameType, body: &str) -> Result<Frame, DecodeError> {
        Ok(match frame_type {
            FrameType::ToolDispatch => Frame::ToolDispatch(tagged(body)?),
            FrameType::ToolResult => Frame::ToolResult(tagged(body)?),
            FrameType::EvidenceChunk => Frame::EvidenceChunk(tagged(body)?),
            FrameType::GuestQuery => Frame::GuestQuery(tagged(body)?),
            FrameType::GuestResponse => Frame::GuestResponse(tagged(body)?),
            FrameType::ResetSignal => Frame::ResetSignal(tagged(body)?),
            FrameType::ResetAck => Frame::ResetAck(tagged(body)?),
            FrameType::ErrorEvent => Frame::ErrorEvent(tagged(body)?),
            FrameType::Hello => Frame::Hello(tagged(body)?),
            FrameType::Imprint => Frame::Imprint(tagged(body)?),
            FrameType::Imprinted => Frame::Imprinted(tagged(body)?),
            FrameType::Renew => Frame::Renew(tagged(body)?),
            FrameType::Renewed => Frame::Renewed(tagged(body)?),
            FrameType::OpenRun => Frame::OpenRun(tagged(body)?),
            FrameType::OpenPush => Frame::OpenPush(tagged(body)?),
            FrameType::OpenPull => Frame::OpenPull(tagged(body)?),
            FrameType::Opened => Frame::Opened(tagged(body)?),
            FrameType::WarmDispatch => Frame::WarmDispatch(tagged(body)?),
        })
    }
}

fn tagged<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, DecodeError> {
    let Tagged(frame) = serde_json::from_str(text)?;
    Ok(frame)
}

/// The body of a frame isn't what the protocol allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It isn't UTF-8.
    #[error("the frame is not UTF-8")]
    NotUtf8(#[from] std::str::Utf8Error),
    /// It isn't JSON, or not the object that its `type` promises.
    #[error("the frame is not an object of the protocol: {reason}")]
    NotAFrame {
        /// What the parser says, as a [line](crate::sanitize::line) of at most 200 characters: it may quote the frame.
        reason: String,
    },
    /// Its `type` is none that this build knows.
    #[error("the frame's type {name:?} is not known")]
    UnknownType {
        /// The first 64 characters of the type.
        name: String,
    },
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        DecodeError::NotAFrame {
            reason: sanitize::line(&error.to_string(), 200),
        }
    }
}

#[cfg(test)]
mod tests;
