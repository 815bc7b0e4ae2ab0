//! [`beyond_streams`] prepares a descriptor for a child.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Returns the descriptor under a number of at least 3. A process that has closed its standard streams gets their
/// numbers for the files that it opens next, but the child replaces the descriptors 0 to 2.
pub(crate) fn beyond_streams(descriptor: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    let descriptor = descriptor.into();
    match descriptor.as_raw_fd() {
        0..=2 => Ok(rustix::io::fcntl_dupfd_cloexec(&descriptor, 3)?),
        _ => Ok(descriptor),
    }
}
