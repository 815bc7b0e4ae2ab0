//! [`Error`]: the errors of a channel and of the connections of runs and transfers, each with a stable code.

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
/// Errors can be cloned, since every request in flight gets the reason why the channel was closed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection to the guest was made within the limit. The guest has been asked for nothing, so the caller may
    /// try again.
    #[error(
        "no vsock channel to guest port {port} through {} after {attempts} attempts in {elapsed:.1?}",
        socket.display()
    )]
    Handshake {
        /// The hybrid-vsock socket.
        socket: PathBuf,
        /// The guest's port.
        port: u32,
        /// The number of attempts.
        attempts: u32,
        /// The time of all attempts together.
        elapsed: Duration,
        /// Why the last attempt failed.
        source: HandshakeError,
    },
    /// The channel is closed, and not because of a bad frame.
    #[error("{origin} is closed")]
    Closed {
        /// The channel.
        origin: Origin,
        /// Which side closed it, or why the stream failed.
        source: CloseCause,
    },
    /// The guest announced a frame or a record that is larger than its type allows. The channel is closed.
    #[error("{origin}: the guest announced {} of {length} bytes, more than {limit}", frame.unwrap_or("a frame"))]
    FrameTooLarge {
        /// The channel.
        origin: Origin,
        /// The frame's type or the record's kind; `None` if the length is above that of every type.
        frame: Option<&'static str>,
        /// The announced length, in bytes.
        length: u64,
        /// The limit in bytes: that of the type, or 64 KiB for a frame that answers no request in flight.
        limit: u64,
    },
    /// The request is too large for a frame. It wasn't sent, and the channel stays open.
    #[error("{origin}: the request can't be sent")]
    RequestTooLarge {
        /// The channel.
        origin: Origin,
        /// The request's size and the limit.
        source: LengthError,
    },
    /// The guest sent a frame that breaks a rule of the protocol. The channel is closed.
    #[error("{origin}: the guest sent a malformed frame")]
    FrameMalformed {
        /// The channel.
        origin: Origin,
        /// The rule that the frame breaks; `None` if its length was 0.
        #[source]
        source: Option<DecodeError>,
    },
    /// The guest sent a record of an unknown kind, or one that is shorter than its kind allows. The connection is
    /// closed.
    #[error("{origin}: the guest sent a malformed record")]
    RecordMalformed {
        /// The connection.
        origin: Origin,
        /// The rule that the record breaks.
        source: RecordError,
    },
    /// The request needs an extension that the guest hasn't listed on this channel: the guest is older, or no hello was
    /// sent. Nothing was sent.
    #[error("{origin}: the guest does not have the extension {extension}")]
    NotAnnounced {
        /// The channel.
        origin: Origin,
        /// The extension.
        extension: &'static str,
    },
    /// The guest refused a run or a transfer, since it serves as many as it can at the same time. Another attempt may
    /// succeed once one of them has ended.
    #[error("{origin}: the guest serves no further run or transfer for now")]
    TooManyStreams {
        /// The connection.
        origin: Origin,
    },
    /// The guest refused to open a run or a transfer, for another reason.
    #[error("{origin}: the guest refused the connection: {code}: {message}")]
    Refused {
        /// The connection.
        origin: Origin,
        /// The guest's code, as a [line](crate::sanitize::line) of at most 256 characters.
        code: String,
        /// The guest's message, as a line of at most 4,096 characters.
        message: String,
    },
    /// A frame or a record didn't cross within its time limits. The channel or connection is closed.
    #[error(
        "{origin}: a frame or record {direction} stalled after {done} bytes, {waited:.1?} after it began"
    )]
    PartialFrameTimeout {
        /// The channel.
        origin: Origin,
        /// `from the guest` or `to the guest`.
        direction: &'static str,
        /// How many bytes had crossed, including the header.
        done: usize,
        /// The time since the frame or record began.
        waited: Duration,
    },
    /// The guest sent a well-formed frame or record that isn't allowed at this point. The channel or connection is
    /// closed.
    #[error("{origin}: the guest broke the protocol")]
    Protocol {
        /// The channel.
        origin: Origin,
        /// The rule that the guest broke.
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
    /// Another hello is in flight, or has timed out, on this channel. Nothing was sent.
    #[error("{origin}: a hello was sent before and has no answer")]
    DuplicateHello {
        /// The channel.
        origin: Origin,
    },
    /// A tool's result didn't come within the deadline and the grace. Whether the tool still runs isn't known.
    #[error("{origin}: no result of command {command_id:?} within {waited:.1?}")]
    ToolTimeout {
        /// The channel.
        origin: Origin,
        /// The command.
        command_id: String,
        /// The time that was waited: the deadline plus the grace.
        waited: Duration,
    },
    /// The evidence of a command is incomplete or doesn't agree with its result. So the result is dropped, and the
    /// command has failed. The channel stays open.
    #[error("{origin}: the evidence of command {command_id:?} does not prove its result")]
    Evidence {
        /// The channel.
        origin: Origin,
        /// The command.
        command_id: String,
        /// What is wrong with the evidence.
        source: EvidenceError,
    },
    /// The guest didn't answer a request within its limit. (For a tool this is [`Error::ToolTimeout`].)
    #[error("{origin}: no answer to {request} within {waited:.1?}")]
    NoAnswer {
        /// The channel.
        origin: Origin,
        /// The name of the request's frame, or of the query.
        request: &'static str,
        /// The limit.
        waited: Duration,
    },
}

impl Error {
    /// The error's stable code, such as `SANDBOX_VSOCK_CLOSED`.
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
            Error::DuplicateRequest { .. } | Error::DuplicateHello { .. } => {
                "SANDBOX_VSOCK_DUPLICATE_REQUEST"
            }
            Error::DuplicateQuery { .. } => "GUEST_QUERY_DUPLICATE",
            Error::ToolTimeout { .. } => "SANDBOX_TOOL_TIMEOUT",
            Error::NoAnswer { .. } => "GUEST_QUERY_TIMEOUT",
            Error::Evidence { source, .. } => source.code(),
        }
    }
}

impl Error {
    /// Whether the request wasn't sent because another request with its id is in flight or has timed out.
    pub(crate) fn is_duplicate(&self) -> bool {
        matches!(
            self,
            Error::DuplicateRequest { .. }
                | Error::DuplicateHello { .. }
                | Error::DuplicateQuery { .. }
        )
    }

    /// Whether the guest gave no answer: the handshake failed, an answer didn't come in time, or the guest or its VMM
    /// closed the channel. False if the guest gave a wrong answer, and if this process closed the channel.
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

/// Why a channel was closed that had no bad frame.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseCause {
    /// This process closed it: with [`Channel::close`](super::Channel::close), or because the last clone was dropped.
    #[error("closed by this process")]
    Us,
    /// The guest closed it between two frames, or the VMM did when the VM was deleted or restored.
    #[error("closed by the guest or its VMM")]
    Peer,
    /// The guest or the VMM closed it inside a frame.
    #[error("closed by the guest or its VMM inside a frame, after {received} bytes")]
    PeerInsideFrame {
        /// How many bytes of the frame had come, including its length.
        received: usize,
    },
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[source] Arc<io::Error>),
}

/// Why an attempt to connect failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The socket's path doesn't fit the address of a Unix socket (107 bytes). No connection was tried.
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
    /// The VMM closed the connection without a reply: nothing listens on the guest's port, or the guest hasn't booted
    /// yet.
    #[error("the VMM closed without a reply: nothing listens on the guest's port")]
    ClosedSilently,
    /// The VMM closed the connection inside the reply: the guest hasn't booted yet, or the VM was reset or deleted
    /// meanwhile.
    #[error("the VMM closed inside its reply, after {reply:?}: the guest isn't up, or was reset")]
    CutReply {
        /// The part of the reply that had come.
        reply: String,
    },
    /// No complete reply came in time: the guest has no vsock driver yet, or the VM is paused.
    #[error("no reply within {limit:.1?}: the guest isn't up, or is paused")]
    NoReply {
        /// How long this attempt waited.
        limit: Duration,
    },
    /// The reply isn't one of hybrid vsock, so the socket belongs to another program. The connection isn't tried again.
    #[error("the reply {reply:?} is not `OK <port>`")]
    BadReply {
        /// The beginning of the reply: up to the newline or the end of the attempt, at most 31 bytes.
        reply: String,
    },
}

impl Error {
    /// The error for a failed read.
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

    /// The error for a failed write.
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
