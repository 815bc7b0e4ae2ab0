//! What a channel reports beside the answers to its requests.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;
use crate::broadcast::Weight;
use crate::guest::protocol::{ErrorEvent, Frame};

/// Something that happened on a channel.
#[derive(Clone, Debug)]
pub struct ChannelEvent {
    /// The channel.
    pub origin: Origin,
    /// What happened.
    pub kind: ChannelEventKind,
}

/// What happened on a channel. Every frame that keeps the protocol is exactly one event; one that breaks it is the
/// reason in [`Closed`](ChannelEventKind::Closed). `Debug` shows the type of a frame, and nothing of what it holds.
#[derive(Clone)]
pub enum ChannelEventKind {
    /// A frame came in, as the guest sent it.
    Frame(Arc<Frame>),
    /// A frame came in for a request that had already given up.
    LateArrival(Arc<Frame>),
    /// The guest reports an error that belongs to no request. Its texts are made [lines](crate::sanitize::line), the code
    /// of at most 256 characters, the message of at most 4,096.
    GuestError(ErrorEvent),
    /// The channel is closed, for this reason.
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
            // Its texts are bounded.
            ChannelEventKind::Closed(_) => 0,
        };
        size_of::<ChannelEvent>() + size_of::<Frame>() + held
    }
}

/// Which channel: every channel of a process, and every connection of its own that a run or a transfer has, has its own
/// number, so that frames of two connections through one socket, before a reset and after it, can be told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The channel's number, from 1, unique in this process.
    pub channel: u64,
    /// The hybrid-vsock socket.
    pub socket: Arc<Path>,
    /// The guest's port.
    pub port: u32,
}

impl Origin {
    /// The next connection to this port.
    pub(super) fn next(socket: Arc<Path>, port: u32) -> Origin {
        static OPENED: AtomicU64 = AtomicU64::new(0);

        Origin {
            channel: OPENED.fetch_add(1, Ordering::Relaxed) + 1,
            socket,
            port,
        }
    }

    /// Another connection to the same port.
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
