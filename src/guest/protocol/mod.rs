//! The frames between host and guest: what crosses the channel, as types.
//!
//! A frame's body is one JSON object whose `type` names the variant of [`Frame`]. Objects are closed: a field that
//! the frame doesn't have is refused, and so are an array in place of an object, a repeated field, and a
//! value outside its range. Decoding allocates for what a frame may hold and for nothing else, so a hostile peer gets
//! no more memory out of the host than the bytes that it sent.

mod closed;
mod evidence;
mod extension;
mod query;
mod reset;
mod tool;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use closed::Tagged;

pub use evidence::EvidenceChain;
pub use extension::{Extension, Hello, Imprint, Imprinted, Renew, Renewed, Seed};
pub use query::{
    GuestProcess, GuestQuery, GuestResponse, MemUsage, OpenFdCount, ProcessList, QueryKind,
    QueryResult,
};
pub use reset::{
    DivergenceAction, ResetAck, ResetReason, ResetSignal, VerificationDetails, VmmApiState,
};
pub use tool::{EvidenceChunk, ToolDispatch, ToolName, ToolNameError, ToolResult};

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
    /// The frame's `type` on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Frame::ToolDispatch(_) => "ToolDispatch",
            Frame::ToolResult(_) => "ToolResult",
            Frame::EvidenceChunk(_) => "EvidenceChunk",
            Frame::GuestQuery(_) => "GuestQuery",
            Frame::GuestResponse(_) => "GuestResponse",
            Frame::ResetSignal(_) => "ResetSignal",
            Frame::ResetAck(_) => "ResetAck",
            Frame::ErrorEvent(_) => "ErrorEvent",
            Frame::Hello(_) => "Hello",
            Frame::Imprint(_) => "Imprint",
            Frame::Imprinted(_) => "Imprinted",
            Frame::Renew(_) => "Renew",
            Frame::Renewed(_) => "Renewed",
        }
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says which of the rules the body breaks.
    pub fn decode(body: &[u8]) -> Result<Frame, DecodeError> {
        let text = std::str::from_utf8(body)?;
        let Tag { name } = serde_json::from_str(text)?;
        Ok(match name.as_ref() {
            "ToolDispatch" => Frame::ToolDispatch(tagged(text)?),
            "ToolResult" => Frame::ToolResult(tagged(text)?),
            "EvidenceChunk" => Frame::EvidenceChunk(tagged(text)?),
            "GuestQuery" => Frame::GuestQuery(tagged(text)?),
            "GuestResponse" => Frame::GuestResponse(tagged(text)?),
            "ResetSignal" => Frame::ResetSignal(tagged(text)?),
            "ResetAck" => Frame::ResetAck(tagged(text)?),
            "ErrorEvent" => Frame::ErrorEvent(tagged(text)?),
            "Hello" => Frame::Hello(tagged(text)?),
            "Imprint" => Frame::Imprint(tagged(text)?),
            "Imprinted" => Frame::Imprinted(tagged(text)?),
            "Renew" => Frame::Renew(tagged(text)?),
            "Renewed" => Frame::Renewed(tagged(text)?),
            unknown => {
                return Err(DecodeError::UnknownType {
                    name: unknown.chars().take(64).collect(),
                });
            }
        })
    }
}

/// A frame's `type`, whatever else it holds.
#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow, rename = "type")]
    name: Cow<'a, str>,
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
        /// What the parser says, cut to 200 characters and without control characters: it may quote the frame.
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
        let printable = |c: char| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        };
        let reason = error.to_string().chars().take(200).map(printable).collect();
        DecodeError::NotAFrame { reason }
    }
}

#[cfg(test)]
mod tests;
