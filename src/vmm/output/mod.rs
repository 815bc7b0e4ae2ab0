//! The output of VMMs and their guests: logs, consoles and event monitors. One thread reads it at a bounded rate
//! ([`pump`]), and files and queues of bounded size keep it.

mod backtrace;
mod log;
pub(super) mod pump;
mod throttle;

pub(super) use backtrace::without_backtraces;
pub(super) use log::Log;
pub(crate) use log::tail_of;

use crate::broadcast::Capacity;

/// How far a subscriber of events can lag behind before it loses the oldest ones.
pub(super) const BACKLOG: Capacity = Capacity {
    count: 256,
    bytes: 1 << 20,
};
