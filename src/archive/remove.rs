//! Removing a tree.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::ArchiveError;
use super::listing::{Listing, Name};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes all that is in `directory`, to any depth, with two descriptors and without following anything.
pub(super) fn content(directory: &OwnedFd) -> Result<(), Errno> {
    let mut listing = Listing::new();
    let mut above: Vec<Vec<u8>> = Vec::new();
    // Opened anew: what was read from before isn't listed again.
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

/// Removes what can be removed, up to the first directory that has something in it.
fn first_full_directory(here: &OwnedFd, listing: &mut Listing) -> Result<Option<Vec<u8>>, Errno> {
    let mut stop = Ok(None);
    let _ = listing.read(here.as_fd(), b"", |Name { name, kind }| {
        let removed = match kind {
            FileType::Directory => unlinkat(here, name.as_slice(), AtFlags::REMOVEDIR),
            _ => unlinkat(here, name.as_slice(), AtFlags::empty()),
        };
        stop = match removed {
            Ok(()) => return Ok(()),
            // Linux says the latter of a directory that is not called one here.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR) => Ok(Some(name)),
            Err(errno) => Err(errno),
        };
        Err(ArchiveError::Cancelled)
    });
    stop
}
