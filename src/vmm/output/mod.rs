//! What VMMs and their guests write: logs, consoles and event monitors, read at a bounded rate by one thread ([`pump`]) and kept
//! within bounds.

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
