//! What VMMs and their guests write: logs, consoles and event monitors, read at a bounded rate by one thread ([`pump`]) and kept
//! within bounds.

mod backtrace;
mod events;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod log;
pub(super) mod pump;
mod throttle;

pub(super) use backtrace::without_backtraces;
pub(super) use events::BACKLOG;
pub use events::Event;
pub(super) use log::Log;
pub(crate) use log::tail_of;
