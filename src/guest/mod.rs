//! The protocol between host and guest, and the program `chv-guest` that serves it inside the guest.
//!
//! [`protocol::Frame`] holds every message of the channel; [`frame`] and [`record`] hold the byte formats. With the
//! feature `guest` there are three more modules: `init`, the guest's first process; `dispatcher`, which runs the tools;
//! and `stand_in`, which runs the dispatcher inside a test's process. [`BUILD_ID`] identifies the sources of all of
//! these.
//!
//! `chv-guest` has no async runtime, so everything here is blocking code. The host's side of the channel is
//! [`vsock`](crate::vsock).

mod build_id;
#[cfg(feature = "guest")]
pub mod dispatcher;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(feature = "guest")]
pub mod init;
pub mod protocol;
pub mod record;
#[cfg(feature = "guest")]
pub mod stand_in;

#[cfg(feature = "image")]
pub(crate) use build_id::BUILD_ID_MARKER;
pub use build_id::{BUILD_ID, MARKED_BUILD_ID};
