//! What host and guest share: the frames between them, and the id of the build that speaks them.
//!
//! The guest's program has no async runtime, so everything here is plain blocking code; the host's side of the
//! channel is [`vsock`](crate::vsock).

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

pub use build_id::{BUILD_ID, BUILD_ID_MARKER, MARKED_BUILD_ID};
