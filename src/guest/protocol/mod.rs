//! The messages between host and guest, as types. [`Frame`] is one message of the channel.
//!
//! The *channel* is the host's main connection to a guest ([`vsock::Channel`](crate::vsock::Channel)). A *frame* is one
//! message of the channel: a length and a JSON body ([`frame`](super::frame)). Each run with streams and each transfer
//! of files has a connection of its own, which begins with one frame in each direction. Every later message of such a
//! connection is a *record*: a kind, a length, and a body of bytes or JSON ([`record`](super::record)).
//!
//! # Malformed frames
//!
//! A frame's body is one JSON object whose `type` names the variant of [`Frame`]. Objects are closed: a frame is
//! *malformed* if it lacks a field that isn't an `Option`, or has an unknown field, a repeated one, an array in place
//! of an object, or a value outside its range. In `params` and `env` the caller chooses the names, so any field is
//! allowed there. Decoding refuses a malformed frame with [`DecodeError::NotAFrame`].
//!
//! - The host closes the channel after a malformed frame and after one of an unknown `type`
//!   ([`FrameMalformed`](crate::vsock::Error::FrameMalformed)), and after one that only a host sends
//!   ([`Protocol`](crate::vsock::Error::Protocol)).
//! - `chv-guest` answers each of these with an [`ErrorEvent`]. After an unknown `type` it reads on; otherwise it closes
//!   the connection.
//!
//! Decoding allocates only for the fields that a frame may have, so a hostile peer can't make the host allocate more
//! than the bytes that it sent. The host reads the type before it decodes anything else. Its limit for the body depends
//! on the type: 16 MiB for a [`ToolResult`], 1.5 MiB for an [`EvidenceChunk`], 64 KiB for every other type that it
//! receives. A longer body closes the channel ([`FrameTooLarge`](crate::vsock::Error::FrameTooLarge)).
//!
//! # Extensions
//!
//! An *extension* is an optional part of the protocol that was added after its first version ([`Extension`]). Host and
//! guest list the extensions that they know in their [`Hello`]s. A host uses an extension only with a guest whose hello
//! lists it.
//!
//! # The nonce
//!
//! A [golden snapshot](crate::golden) is the state of a VM to which every reset returns. Before the host takes it, it
//! gives the guest a *nonce*: a text that the guest keeps in memory only ([`Imprint`]). A guest that was restored from
//! the snapshot has this nonce. A guest that was booted again has none.
//!
//! All guests of one snapshot have the same nonce. The snapshot's manifest holds it in plain text, and a guest tells it
//! in its hello to every host that connects. So the nonce marks the snapshot that a guest comes from. It doesn't tell
//! two guests of one snapshot apart, and it is no credential.
//!
//! # Streams
//!
//! On the connection of a run or transfer the host's first frame is an [`OpenRun`], an [`OpenPush`] or an [`OpenPull`].
//! The guest answers with [`Opened`], after which the connection carries records only; or it answers with an
//! [`ErrorEvent`] and closes the connection.
//!
//! | connection | to the guest | to the host |
//! |---|---|---|
//! | run | `Stdin`, `EndOfStdin`, `Signal` ([`RunSignal`]) | `Stdout`, `Stderr`, at last `End` ([`RunEnd`]) |
//! | push | `Data`, `EndOfData` | at last `End` ([`TransferEnd`]) |
//! | pull | nothing | `Data`, `EndOfData`, at last `End` ([`TransferEnd`]) |
//!
//! Any other record, and a record out of this order, ends the connection. The error concerns this connection alone, not
//! the channel. A host cancels a run or a transfer when it closes the connection.
//!
//! A guest reads further records while less than [`MAX_RECORD`](super::record::MAX_RECORD) bytes of standard input wait
//! for the tool. So a signal overtakes less than that many waiting bytes, and waits while there are more. A guest
//! ignores the records that come after the tool's end.
//!
//! # Warm runs
//!
//! A *warm run* runs a tool before the host takes the golden snapshot, so that every restored guest has the tool's
//! program and files in memory already. What the tool writes must not reach the disk. So the tool runs on a *throwaway
//! layer*: a file system over the tools' root that keeps in the guest's memory what is written to it.
//!
//! The host asks for a warm run with a [`WarmDispatch`](Frame::WarmDispatch). It has the fields of a [`ToolDispatch`]
//! and the same answer: chunks of evidence and a [`ToolResult`]. Before the guest sends the result, it kills every
//! process that runs on the layer and removes the layer, within [`LAYER_REMOVAL`]. A guest has one such layer at a
//! time. If another warm run has the layer, or if the layer can't be made or removed, the outcome is
//! [`GuestFailed`](ToolOutcomeKind::GuestFailed), however the tool ended.

mod closed;
mod evidence;
mod extension;
mod frame_type;
mod json_text;
mod limits;
mod query;
mod reset;
mod run_chain;
mod stream;
mod tool;
mod tool_result;

use serde::{Deserialize, Serialize};

use crate::sanitize;
use closed::Tagged;

pub use crate::archive::TransferLimits;
pub use evidence::EvidenceChain;
pub use extension::{Extension, Hello, Imprint, Imprinted, Renew, Renewed, Seed};
pub(crate) use frame_type::FrameType;
pub use limits::{
    DEFAULT_PORT, LAYER_REMOVAL, MAX_EVIDENCE_CHUNK, MAX_FRAME, MAX_PROCESSES, MAX_TOOL_NAME,
    PROTOCOL_VERSION,
};
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

/// One message of the channel between host and guest. The `type` on the wire is the variant's name.
///
/// It is serialised with serde, and decoded with [`Frame::decode`]. [`frame`](super::frame) adds the length.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type")]
pub enum Frame {
    /// To the guest: run a tool.
    ToolDispatch(ToolDispatch),
    /// To the host: how the tool ended.
    ToolResult(ToolResult),
    /// To the host: a piece of the tool's output.
    EvidenceChunk(EvidenceChunk),
    /// To the guest: a request for a reading, such as the number of open descriptors.
    GuestQuery(GuestQuery),
    /// To the host: the reading that a [`GuestQuery`] asked for.
    GuestResponse(GuestResponse),
    /// To the guest: a reset was made. Neither side of this crate sends it; see [`ResetSignal`].
    ResetSignal(ResetSignal),
    /// To the host: the guest's report on the reset. Neither side of this crate sends it; see [`ResetSignal`].
    ResetAck(ResetAck),
    /// To the host: an error, which has no id of a request.
    ErrorEvent(ErrorEvent),
    /// Both ways: the sender's version, build and [extensions](self#extensions).
    Hello(Hello),
    /// To the guest: keep a [nonce](self#the-nonce) in memory. Needs [`Extension::Nonce`].
    Imprint(Imprint),
    /// To the host: the guest keeps the nonce.
    Imprinted(Imprinted),
    /// To the guest: reseed the random pool and set the clock after a restore. Needs [`Extension::Reseed`] or
    /// [`Extension::Clock`].
    Renew(Renew),
    /// To the host: whether the random pool was reseeded and the clock set.
    Renewed(Renewed),
    /// To the guest, as the first frame of a connection of its own: run a tool with streams. Needs [`Extension::Run`].
    OpenRun(OpenRun),
    /// To the guest, as the first frame of a connection of its own: receive files. Needs [`Extension::Files`].
    OpenPush(OpenPush),
    /// To the guest, as the first frame of a connection of its own: send files. Needs [`Extension::Files`].
    OpenPull(OpenPull),
    /// To the host: the answer to an [`OpenRun`], [`OpenPush`] or [`OpenPull`]. Records follow on this connection.
    Opened(Opened),
    /// To the guest: make a [warm run](self#warm-runs), which runs a tool and discards what it writes. Needs
    /// [`Extension::Warm`].
    WarmDispatch(ToolDispatch),
}

/// An error of the guest. It has no id of a request, so a request that causes it gets no answer and fails when its time
/// is over ([`NoAnswer`](crate::vsock::Error::NoAnswer), [`ToolTimeout`](crate::vsock::Error::ToolTimeout)).
///
/// In two places it is an answer. To a [`Hello`] it means that the guest knows no hello. To an [`OpenRun`],
/// [`OpenPush`] or [`OpenPull`] it means that the guest refuses the run or transfer
/// ([`Refused`](crate::vsock::Error::Refused), [`TooManyStreams`](crate::vsock::Error::TooManyStreams)).
///
/// `chv-guest` sends these codes:
///
/// | code | the host's frame | the guest then |
/// |---|---|---|
/// | `SANDBOX_FRAME_MALFORMED` | has no body, isn't UTF-8 or is [malformed](self#malformed-frames) | closes |
/// | `SANDBOX_VSOCK_FRAME_TOO_LARGE` | has a body of more than [`MAX_FRAME`] bytes | closes |
/// | `SANDBOX_VSOCK_PROTOCOL_ERROR` | has an unknown `type` | reads on |
/// | | has a `command_id` or a nonce of more than 256 bytes | reads on; closes after an [`OpenRun`] |
/// | | isn't allowed at this point | closes |
/// | `SANDBOX_VSOCK_DUPLICATE_REQUEST` | has the id of a running tool | reads on; closes after an [`OpenRun`] |
/// | `SANDBOX_TOO_MANY_STREAMS` | opens a run or transfer while 8 are open | closes |
/// | `GUEST_QUERY_FAILED` | asks for a reading that can't be taken | reads on |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorEvent {
    /// The error's stable code. Decoding accepts any text. A [`Channel`](crate::vsock::Channel) makes it a
    /// [line](crate::sanitize::line) of at most 256 characters.
    pub code: String,
    /// The error in words, for logs. A [`Channel`](crate::vsock::Channel) makes it a line of at most 4,096 characters.
    pub message: String,
}

impl Frame {
    /// The frame's type.
    pub(crate) fn frame_type(&self) -> FrameType {
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

    /// About how many bytes the frame's texts and lists occupy in the host's memory. 0 for a frame that only a guest
    /// receives.
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
            // A host doesn't receive these, or they hold no text.
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

    /// Reads the body of a frame, without the length before it. The body's size isn't checked: the caller must not read
    /// more than [`MAX_FRAME`] bytes.
    ///
    /// # Errors
    ///
    /// - [`DecodeError::NotUtf8`] if the body isn't UTF-8
    /// - [`DecodeError::UnknownType`] if its `type` is none that this build knows
    /// - [`DecodeError::NotAFrame`] if it isn't JSON, has no `type`, or is [malformed](self#malformed-frames)
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

/// The body of a frame, or of a [record that is JSON](JsonRecord), breaks a rule of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body isn't UTF-8.
    #[error("the frame is not UTF-8")]
    NotUtf8(#[from] std::str::Utf8Error),
    /// The body isn't JSON, or isn't an object with the fields of its `type`. For a record: it isn't the JSON of its
    /// type.
    #[error("the frame is not an object of the protocol: {reason}")]
    NotAFrame {
        /// The parser's message, made a [line](crate::sanitize::line) of at most 200 characters, since it may quote the
        /// frame.
        reason: String,
    },
    /// The frame's `type` is none that this build knows.
    #[error("the frame's type {name:?} is not known")]
    UnknownType {
        /// The first 64 characters of the `type`, as the peer sent them. The error's text shows them escaped.
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
