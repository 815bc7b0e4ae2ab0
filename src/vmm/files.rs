//! Files of this user's own, made and opened without trusting what lies in their place, and descriptors for a child.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Creates a file for this user only.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Opens a file that an earlier agent left, or something in its place: neither a link is followed, nor a FIFO waited for.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// The descriptor under a number beyond those of the standard streams, which a child replaces. A process that has closed its
/// own gets their numbers for what it opens next.
pub(crate) fn beyond_streams(descriptor: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    let descriptor = descriptor.into();
    match descriptor.as_raw_fd() {
        0..=2 => Ok(rustix::io::fcntl_dupfd_cloexec(&descriptor, 3)?),
        _ => Ok(descriptor),
    }
}
