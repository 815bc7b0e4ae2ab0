//! [`ChannelEvent`]: the events of a channel, and [`Origin`], which identifies a channel in events and errors.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;
use crate::broadcast::Weight;
use crate::guest::protocol::{ErrorEvent, Frame};

/// One event of a channel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelEvent {
    /// The channel.
    pub origin: Origin,
    /// What happened.
    pub kind: ChannelEventKind,
}

/// What happened on a channel.
///
/// Every frame that keeps to the protocol is exactly one event. A frame that breaks the protocol is the reason in
/// [`Closed`](ChannelEventKind::Closed). `Debug` shows the type of a frame, but not its content.
#[derive(Clone)]
#[non_exhaustive]
pub enum ChannelEventKind {
    /// A frame for a request that waits, as the guest sent it.
    Frame(Arc<Frame>),
    /// A frame for a request that had given up before.
    LateArrival(Arc<Frame>),
    /// The guest reports an error that belongs to no request. Its texts were made [lines](crate::sanitize::line), the
    /// code of at most 256 characters, the message of at most 4,096.
    GuestError(ErrorEvent),
    /// The channel was closed for this reason.
    Closed(Error),
}

impl fmt::Debug for ChannelEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelEventKind::Frame(frame) => write!(f, "Frame({})", frame.name()),
            ChannelEventKind::LateArrival(frame) => write!(f, "LateArrival({})", frame.name()),
            ChannelEventKind::GuestError(event) => {
                f.debug_tuple("GuestError").field(event).finish()
            }
            ChannelEventKind::Closed(error) => f.debug_tuple("Closed").field(error).finish(),
        }
    }
}

impl Weight for ChannelEvent {
    fn weight(&self) -> usize {
        let held = match &self.kind {
            ChannelEventKind::Frame(frame) | ChannelEventKind::LateArrival(frame) => frame.weight(),
            ChannelEventKind::GuestError(event) => event.code.len() + event.message.len(),
            // The texts of these errors are bounded, and there is one such event for each channel.
            ChannelEventKind::Closed(_) => 0,
        };
        size_of::<ChannelEvent>() + size_of::<Frame>() + held
    }
}

/// Identifies a channel, or the connection of a run or transfer. Each has its own number. So the frames of two
/// connections through the same socket can be told apart, such as those before and after a reset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Origin {
    /// The channel's number, from 1, unique in this process.
    pub channel: u64,
    /// The hybrid-vsock socket.
    pub socket: Arc<Path>,
    /// The guest's port.
    pub port: u32,
}

impl Origin {
    /// A new connection to this port.
    pub(super) fn next(socket: Arc<Path>, port: u32) -> Origin {
        static OPENED: AtomicU64 = AtomicU64::new(0);

        Origin {
            channel: OPENED.fetch_add(1, Ordering::Relaxed) + 1,
            socket,
            port,
        }
    }

    /// A new connection to the same port through the same socket.
    pub(super) fn of_another(&self) -> Origin {
        Origin::next(Arc::clone(&self.socket), self.port)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin {
            channel,
            socket,
            port,
        } = self;
        write!(
            f,
            "vsock channel {channel} to guest port {port} through {}",
            socket.display()
        )
    }
}
