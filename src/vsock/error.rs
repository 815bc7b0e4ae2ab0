//! What can go wrong with a channel, each with its stable code.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{EvidenceError, Origin, Violation};
use crate::guest::frame::LengthError;
use crate::guest::protocol::{DecodeError, MAX_FRAME};
use crate::guest::record::RecordError;

/// A channel couldn't be opened, was closed, or a request on it failed.
///
/// Errors can be cloned because one reason to close is given to every request that was in flight.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No connection to the guest came about within the limit. Starts nothing, so it can be tried again.
    #[error(
        "no vsock channel to guest port {port} through {} after {attempts} attempts in {elapsed:.1?}",
        socket.display()
    )]
    Handshake {
        /// The hybrid-vsock socket.
        socket: PathBuf,
        /// The guest's port.
        port: u32,
        /// How many connections were tried.
        attempts: u32,
        /// How long it took in all.
        elapsed: Duration,
        /// Why the last attempt failed.
        source: HandshakeError,
    },
    /// The channel is closed, without a fault of the guest's frames.
    #[error("{origin} is closed")]
    Closed {
        /// The channel.
        origin: Origin,
        /// Who closed it.
        source: CloseCause,
    },
    /// The guest announced a frame, or a record, that is larger than those of its type may be. The channel is closed.
    #[error("{origin}: the guest announced {} of {length} bytes, more than {limit}", frame.unwrap_or("a frame"))]
    FrameTooLarge {
        /// The channel.
        origin: Origin,
        /// The frame's type, or the record's kind; `None` when it is larger than a frame of any type may be.
        frame: Option<&'static str>,
        /// The frame's length, in bytes.
        length: u64,
        /// The most bytes that it may have. A frame that answers nothing in flight may have 64 KiB.
        limit: u64,
    },
    /// The request is too large to be sent. It was not sent, and the channel goes on.
    #[error("{origin}: the request can't be sent")]
    RequestTooLarge {
        /// The channel.
        origin: Origin,
        /// How large it is.
        source: LengthError,
    },
    /// The guest sent what is no frame of the protocol. The channel is closed.
    #[error("{origin}: the guest sent a malformed frame")]
    FrameMalformed {
        /// The channel.
        origin: Origin,
        /// Which rule it breaks; `None` when its length was 0.
        #[source]
        source: Option<DecodeError>,
    },
    /// The guest sent a record that is shorter than those of its kind, or of no kind that there is. The connection is closed.
    #[error("{origin}: the guest sent a malformed record")]
    RecordMalformed {
        /// The connection.
        origin: Origin,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The guest has not announced what was asked for: it is older, or was not greeted on this channel. Nothing was sent.
    #[error("{origin}: the guest does not have the extension {extension}")]
    NotAnnounced {
        /// The channel.
        origin: Origin,
        /// The extension.
        extension: &'static str,
    },
    /// The guest serves as many runs and transfers as it does at once, and refused one more.
    #[error("{origin}: the guest serves no further run or transfer for now")]
    TooManyStreams {
        /// The connection.
        origin: Origin,
    },
    /// The guest refused to open a connection of its own, for another reason.
    #[error("{origin}: the guest refused the connection: {code}: {message}")]
    Refused {
        /// The connection.
        origin: Origin,
        /// The guest's code, as a [line](crate::sanitize::line) of at most 256 characters.
        code: String,
        /// The guest's words, likewise, of at most 4,096.
        message: String,
    },
    /// A frame or a record stopped on its way. The channel is closed.
    #[error(
        "{origin}: a frame or record {direction} stood still with {done} bytes done, {waited:.1?} after it began"
    )]
    PartialFrameTimeout {
        /// The channel.
        origin: Origin,
        /// `from the guest` or `to the guest`.
        direction: &'static str,
        /// How many bytes of it had crossed, its length included.
        done: usize,
        /// How long ago it began.
        waited: Duration,
    },
    /// The guest sent a frame that has no place here. The channel is closed.
    #[error("{origin}: the guest broke the protocol")]
    Protocol {
        /// The channel.
        origin: Origin,
        /// What it did.
        source: Violation,
    },
    /// A tool with this command id is in flight, or has timed out, on this channel. Nothing was sent.
    #[error("{origin}: the command id {command_id:?} is taken")]
    DuplicateRequest {
        /// The channel.
        origin: Origin,
        /// The id.
        command_id: String,
    },
    /// A query with this id is in flight, or has timed out, on this channel. Nothing was sent.
    #[error("{origin}: the query id {query_id} is taken")]
    DuplicateQuery {
        /// The channel.
        origin: Origin,
        /// The id.
        query_id: Uuid,
    },
    /// A reset signal with this id is in flight, or has timed out, on this channel. Nothing was sent.
    #[error("{origin}: the reset id {reset_id:?} is taken")]
    DuplicateReset {
        /// The channel.
        origin: Origin,
        /// The id.
        reset_id: String,
    },
    /// Another hello is in flight, or has timed out, on this channel. Nothing was sent.
    #[error("{origin}: a hello was sent before and has no answer")]
    DuplicateHello {
        /// The channel.
        origin: Origin,
    },
    /// A tool's result didn't come within its deadline and the grace. Whether it still runs isn't known.
    #[error("{origin}: no result of command {command_id:?} within {waited:.1?}")]
    ToolTimeout {
        /// The channel.
        origin: Origin,
        /// The command.
        command_id: String,
        /// The deadline and the grace.
        waited: Duration,
    },
    /// The evidence of a command isn't whole, so the command has failed, whatever its result says. The channel goes on.
    #[error("{origin}: the evidence of command {command_id:?} is not to be believed")]
    Evidence {
        /// The channel.
        origin: Origin,
        /// The command.
        command_id: String,
        /// What is wrong with it.
        source: EvidenceError,
    },
    /// The guest didn't answer a query, or another request that isn't a tool, within its limit.
    #[error("{origin}: no answer to {request} within {waited:.1?}")]
    NoAnswer {
        /// The channel.
        origin: Origin,
        /// What was asked.
        request: &'static str,
        /// The limit.
        waited: Duration,
    },
}

impl Error {
    /// The protocol's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Handshake { .. } => "SANDBOX_VSOCK_HANDSHAKE_FAILED",
            Error::Closed { .. } => "SANDBOX_VSOCK_CLOSED",
            Error::FrameTooLarge { .. } | Error::RequestTooLarge { .. } => {
                "SANDBOX_VSOCK_FRAME_TOO_LARGE"
            }
            Error::FrameMalformed { .. } => "SANDBOX_FRAME_MALFORMED",
            Error::PartialFrameTimeout { .. } => "SANDBOX_VSOCK_PARTIAL_FRAME_TIMEOUT",
            Error::RecordMalformed { .. } => "SANDBOX_FRAME_MALFORMED",
            Error::NotAnnounced { .. } => "SANDBOX_TOOL_REFUSED",
            Error::TooManyStreams { .. } => "SANDBOX_TOO_MANY_STREAMS",
            Error::Refused { .. } => "SANDBOX_TOOL_ERROR",
            Error::Protocol { .. } => "SANDBOX_VSOCK_PROTOCOL_ERROR",
            Error::DuplicateRequest { .. }
            | Error::DuplicateReset { .. }
            | Error::DuplicateHello { .. } => "SANDBOX_VSOCK_DUPLICATE_REQUEST",
            Error::DuplicateQuery { .. } => "GUEST_QUERY_DUPLICATE",
            Error::ToolTimeout { .. } => "SANDBOX_TOOL_TIMEOUT",
            Error::NoAnswer { .. } => "GUEST_QUERY_TIMEOUT",
            Error::Evidence { source, .. } => source.code(),
        }
    }
}

impl Error {
    /// Whether the request was not sent because another with its id is in flight, or has timed out.
    pub fn is_duplicate(&self) -> bool {
        matches!(
            self,
            Error::DuplicateRequest { .. }
                | Error::DuplicateReset { .. }
                | Error::DuplicateHello { .. }
                | Error::DuplicateQuery { .. }
        )
    }

    /// Whether the guest said nothing where it should have spoken: no handshake, no answer, a channel that ended.
    /// A guest that said something wrong isn't silent.
    pub fn is_silence(&self) -> bool {
        match self {
            Error::Handshake { source, .. } => !matches!(
                source,
                HandshakeError::PathTooLong { .. } | HandshakeError::BadReply { .. }
            ),
            Error::Closed { source, .. } => !matches!(source, CloseCause::Us),
            Error::PartialFrameTimeout { .. }
            | Error::ToolTimeout { .. }
            | Error::NoAnswer { .. } => true,
            _ => false,
        }
    }
}

/// Who closed a channel that had no bad frame.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CloseCause {
    /// This process did: [`Channel::close`](super::Channel::close), or the last clone was dropped.
    #[error("closed by this process")]
    Us,
    /// The other end did, between two frames: the guest, or the VMM at a delete or a restore.
    #[error("closed by the guest or its VMM")]
    Peer,
    /// The other end did, inside a frame.
    #[error("closed by the guest or its VMM inside a frame, after {received} bytes of it")]
    PeerInsideFrame {
        /// How many bytes of the frame had come, its length included.
        received: usize,
    },
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[source] Arc<io::Error>),
}

/// Why an attempt to connect failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The socket's path doesn't fit into an address. Not tried.
    #[error("the socket's path has {bytes} bytes, more than 107")]
    PathTooLong {
        /// The path's length, in bytes.
        bytes: usize,
    },
    /// The socket couldn't be connected to.
    #[error("connecting failed")]
    Connect(#[source] Arc<io::Error>),
    /// The connection failed before the reply was complete.
    #[error("the connection failed during the handshake")]
    Stream(#[source] Arc<io::Error>),
    /// The VMM closed without a reply: nothing listens on the port, or the guest isn't up yet.
    #[error("the VMM closed without a reply: nothing listens on the guest's port")]
    ClosedSilently,
    /// The VMM closed inside the reply: the guest isn't up yet, or the VM was reset or deleted at that moment.
    #[error("the VMM closed inside its reply, after {reply:?}: the guest isn't up, or was reset")]
    CutReply {
        /// What had come of the reply.
        reply: String,
    },
    /// No whole reply came: the guest has no vsock driver yet, or the VM is paused.
    #[error("no reply within {limit:.1?}: the guest isn't up, or is paused")]
    NoReply {
        /// How long this attempt waited.
        limit: Duration,
    },
    /// What answers is no hybrid vsock. Not tried again.
    #[error("the reply {reply:?} is not `OK <port>`")]
    BadReply {
        /// Its first bytes: up to its newline, the end of the attempt, or 31.
        reply: String,
    },
}

impl Error {
    /// The reason to close that a failed read is.
    pub(super) fn reading(origin: &Origin, failure: super::codec::ReadError) -> Error {
        use super::codec::ReadError;

        let origin = origin.clone();
        match failure {
            ReadError::Length(LengthError::Empty) => Error::FrameMalformed {
                origin,
                source: None,
            },
            ReadError::Length(LengthError::TooLarge { length }) => Error::FrameTooLarge {
                origin,
                frame: None,
                length,
                limit: MAX_FRAME as u64,
            },
            ReadError::TooLarge {
                frame_type,
                length,
                limit,
            } => Error::FrameTooLarge {
                origin,
                frame: Some(frame_type.name()),
                length: length as u64,
                limit: limit as u64,
            },
            ReadError::Refused(source) => Error::Protocol { origin, source },
            ReadError::Decode(source) => Error::FrameMalformed {
                origin,
                source: Some(source),
            },
            ReadError::Stalled { received, waited } => Error::PartialFrameTimeout {
                origin,
                direction: "from the guest",
                done: received,
                waited,
            },
            ReadError::Torn { received } => Error::Closed {
                origin,
                source: CloseCause::PeerInsideFrame { received },
            },
            ReadError::Io(error) => Error::Closed {
                origin,
                source: CloseCause::Io(Arc::new(error)),
            },
        }
    }

    /// The reason to close that a failed write is.
    pub(super) fn writing(origin: &Origin, failure: super::outbox::WriteError) -> Error {
        use super::outbox::WriteError;

        let origin = origin.clone();
        match failure {
            WriteError::Stalled { written, waited } => Error::PartialFrameTimeout {
                origin,
                direction: "to the guest",
                done: written,
                waited,
            },
            WriteError::Io(error) => Error::Closed {
                origin,
                source: CloseCause::Io(Arc::new(error)),
            },
        }
    }
}
