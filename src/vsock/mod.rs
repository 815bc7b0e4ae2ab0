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

mod awaken;
mod channel;
mod codec;
mod connection;
mod error;
mod event;
mod evidence;
mod handshake;
mod outbox;
mod pending;
mod text;

pub use awaken::{Awakened, ClockSkew};
pub use channel::{Channel, ChannelConfig, GuestHello};
pub use error::{CloseCause, Error, EvidenceError, HandshakeError, Violation};
pub use event::{ChannelEvent, ChannelEventKind, Origin};
