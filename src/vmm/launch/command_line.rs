//! The command line of a VMM. Its sockets and files are not on it: the VMM inherits them as open descriptors.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use crate::vmm::VmmConfig;

/// The command line's arguments after the program's name.
pub(super) fn arguments(
    config: &VmmConfig,
    listener: &UnixListener,
    events: &OwnedFd,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "--api-socket".into(),
        format!("fd={}", listener.as_raw_fd()).into(),
        "--event-monitor".into(),
        format!("fd={}", events.as_raw_fd()).into(),
    ];
    arguments.extend((0..config.verbosity).map(|_| "-v".into()));
    arguments
}
