//! Removes a tree of any depth.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::ArchiveError;
use super::listing::{Listing, Name};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes everything in `directory`, to any depth, with two open descriptors. No link is followed.
pub(super) fn content(directory: &OwnedFd) -> Result<(), Errno> {
    let mut listing = Listing::new();
    let mut above: Vec<Vec<u8>> = Vec::new();
    // Opened again, since reading a directory goes on where the last read of the same descriptor ended.
    let mut here = openat(directory, c".", DIRECTORY, Mode::empty())?;
    loop {
        match first_full_directory(&here, &mut listing)? {
            Some(name) => {
                here = openat(&here, name.as_slice(), DIRECTORY, Mode::empty())?;
                above.push(name);
            }
            None => {
                let Some(name) = above.pop() else {
                    return Ok(());
                };
                here = openat(&here, c"..", DIRECTORY, Mode::empty())?;
                unlinkat(&here, name.as_slice(), AtFlags::REMOVEDIR)?;
            }
        }
    }
}

/// Removes the entries of `here` up to the first directory that isn't empty, whose name is returned.
fn first_full_directory(here: &OwnedFd, listing: &mut Listing) -> Result<Option<Vec<u8>>, Errno> {
    let mut stop = Ok(None);
    let _ = listing.read(here.as_fd(), b"", |Name { name, kind }| {
        let removed = match kind {
            FileType::Directory => unlinkat(here, name.as_slice(), AtFlags::REMOVEDIR),
            _ => unlinkat(here, name.as_slice(), AtFlags::empty()),
        };
        stop = match removed {
            Ok(()) => return Ok(()),
            // Linux returns ISDIR if `kind` is unknown and the name is that of a directory.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR) => Ok(Some(name)),
            Err(errno) => Err(errno),
        };
        Err(ArchiveError::Cancelled)
    });
    stop
}
