//! The output of VMMs and their guests: logs, consoles and event monitors. One thread reads it at a bounded rate
//! ([`pump`]), and files and queues of bounded size keep it.

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
