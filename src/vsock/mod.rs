//! The channel to the guest: hybrid vsock, frames, and requests matched by id.
//!
//! ```text
//!              open()                     close(), the last clone dropped,
//!   (nothing) --------> open ------------ the guest closes, the stream fails -----> closed
//!      ^  |              |
//!      |  | refused,     +--------------- a frame that is malformed, too large,
//!      +--+ silent:                       late, or an answer to nothing ---------> closed (poisoned)
//!           tried again
//! ```
//!
//! A closed channel never opens again, and after a bad frame nothing tries to find the next good one: what a
//! guest sends after it has broken the protocol means nothing. The first reason to close is kept, and every request in
//! flight and every later one fails with it.
//!
//! The guest is hostile. Its frames are bounded in size and time, decoded into closed types, and an answer counts only
//! for a request that waits for it: one that comes after its request has given up is an event
//! ([`ChannelEventKind::LateArrival`]), and one that was never asked for closes the channel.
//!
//! # What a guest can make a channel hold
//!
//! A frame's type is read before its body is decoded. A type that only the host sends closes the channel, at its first
//! bytes where the `type` comes first; each other type has its own limit
//! ([`FrameType::limit_at_host`](crate::guest::protocol::FrameType::limit_at_host)), and a frame that answers nothing in
//! flight may have 64 KiB. The largest is a tool's result, of 16 MiB; what is decoded from it takes no more than the frame.
//!
//! So the frame that is read takes 32 MiB at most while it is decoded, and events for slow subscribers take 8 MiB, or
//! 16 MiB for one result that is larger than that. A result that large displaces them before it is read: 40 MiB for each
//! channel, and less than 64 MiB with the 16 MiB of events that a [sandbox](crate::sandbox) keeps for its own subscribers.
//!
//! The chunks of a command are hashed and dropped. Where the guest's hello lists
//! [`result/1`](crate::guest::protocol::Extension::Result), their bytes are kept until the result comes, at most 2 MiB for
//! each command in flight; how many those are is the host's choice. A result that was returned is its caller's, and its
//! bytes with it.

//! # Runs and transfers
//!
//! A run with streams ([`Channel::open_run`]) and a transfer of files ([`Channel::open_push`], [`Channel::open_pull`]) have a
//! connection of their own, to a guest whose hello lists [`run/1`](crate::guest::protocol::Extension::Run) or
//! [`files/1`](crate::guest::protocol::Extension::Files). Back-pressure is the socket's: what its reader doesn't take stays with
//! the guest. A connection holds one record of at most 256 KiB in each direction, beside the records that its caller keeps, and of
//! a run the links of the records that may be on their way, at most 2 MiB. A bad record ends its connection and not the channel.

mod awaken;
mod channel;
mod codec;
mod connection;
mod error;
mod event;
mod evidence;
mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handshake;
mod outbox;
mod pending;
mod run;
mod stream;
mod text;

pub use awaken::{Awakened, ClockSkew};
pub use channel::{Channel, ChannelConfig, GuestHello, ToolAnswer};
pub use error::{CloseCause, Error, HandshakeError};
pub use event::{ChannelEvent, ChannelEventKind, Origin};
pub use evidence::OutputBytes;
pub use fault::{EvidenceError, Violation};
pub(crate) use run::RunGuest;
pub use run::{OutputStream, RunName, RunReader, RunRecord, RunStream, RunWriter};
pub use stream::{Record, RecordReader, RecordStream, RecordWriter, StreamCloser};
