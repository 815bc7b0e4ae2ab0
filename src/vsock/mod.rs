//! The host's side of the channel to a guest. A [`Channel`] is one hybrid-vsock connection that carries frames; it
//! matches each answer with its request by id.
//!
//! ```text
//!              open()                     close(), the last clone dropped,
//!   (nothing) --------> open ------------ the guest closes, the stream fails -----> closed
//!      ^  |              |
//!      |  | refused,     +--------------- a frame that is malformed, too large,
//!      +--+ no answer:                    stalled, or answers no request --------> closed
//!           tried again
//! ```
//!
//! A frame is stalled if it began and isn't complete within its time limits ([`Error::PartialFrameTimeout`]). A closed
//! channel never opens again. After a bad frame the host doesn't look for the next good one, since nothing that the
//! guest sends after it has broken the protocol can be trusted. The channel keeps the first reason to close. Every
//! request in flight and every later request fails with it.
//!
//! The guest is hostile. Its frames are bounded in size and time and are decoded into closed types. An answer counts
//! only for a request that waits for it. An answer that comes after its request has given up becomes an event
//! ([`ChannelEventKind::LateArrival`]); an answer to a request that was never made closes the channel.
//!
//! # How much memory a guest can make a channel use
//!
//! The host reads a frame's type before it decodes the body. If `type` is the first field, it is read from the first
//! bytes. A type that only the host sends closes the channel. Every other type has a limit of its own (see
//! [`protocol`](crate::guest::protocol)), but a frame that answers no request in flight may have at most 64 KiB. The
//! largest frame is a tool's result with 16 MiB; the decoded result takes no more memory than the frame.
//!
//! So one frame takes at most 32 MiB while it is decoded. Events for slow subscribers take 8 MiB; a single result may
//! be larger, up to 16 MiB, but then all other events are dropped before the result is read. This makes at most 40 MiB
//! for each channel, and less than 64 MiB together with the 16 MiB of events that a [sandbox](crate::sandbox) keeps for
//! its own subscribers.
//!
//! The chunks of a command are hashed and dropped. If the guest's hello lists
//! [`result/1`](crate::guest::protocol::Extension::Result), their bytes are kept until the result comes: at most 2 MiB
//! for each command in flight. The host decides how many commands are in flight. The memory of a returned result
//! belongs to its caller.
//!
//! # Runs and transfers
//!
//! Each run with streams ([`Channel::open_run`]) and each transfer of files ([`Channel::open_push`],
//! [`Channel::open_pull`]) has a connection of its own. It needs a guest whose hello lists
//! [`run/1`](crate::guest::protocol::Extension::Run) or [`files/1`](crate::guest::protocol::Extension::Files). The
//! socket provides back-pressure: data that the reader doesn't take stays in the guest. Such a connection holds one
//! record of at most 256 KiB in each direction, beside the records that its caller keeps. A run also keeps the hash
//! links of the records that the guest may not have processed yet, at most 2 MiB. A bad record ends its connection, but
//! not the channel.

mod channel;
mod codec;
mod connection;
mod error;
mod event;
mod evidence;
mod evidence_error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handshake;
mod outbox;
mod pending;
mod restored;
mod run;
mod stream;
mod text;

pub use channel::{Channel, ChannelConfig, GuestHello, ToolAnswer};
pub use error::{CloseCause, Error, HandshakeError};
pub use event::{ChannelEvent, ChannelEventKind, Origin};
pub use evidence::OutputBytes;
pub use evidence_error::{EvidenceError, Violation};
pub use restored::{ClockSkew, RestoredGuest};
pub(crate) use run::RunGuest;
pub use run::{OutputStream, RunName, RunReader, RunRecord, RunStream, RunWriter};
pub use stream::{Record, RecordReader, RecordStream, RecordWriter};
