//! Makes the golden copy of a disk ([`copy_private`]) and replaces an overlay by its golden copy ([`put_back`]).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Error;
use super::copy::{Copied, fill};
use super::file::open_regular;
use crate::files::{TemporarySibling, directory_of};

/// Replaces `overlay` atomically by a new file with the bytes of `golden`.
///
/// The new file of mode 0600 is created in the same directory and renamed, so a process that has the old file open
/// keeps the old bytes. A missing overlay is created. If `overlay` is a symbolic link, the file that it leads to is
/// replaced. The overlay must not be open in a VMM, because the VMM would continue to use the old file.
///
/// Nothing is synced to the disk. After a crash of the host the overlay may have the old bytes, the new bytes or a part
/// of the new bytes. That does no harm: no VMM survives such a crash, and the next boot replaces the overlay again or
/// detects the wrong digest.
///
/// # Errors
///
/// [`Error::SameFile`] if both paths lead to one file; [`Error::NotRegular`] for either; [`Error::Changed`] if the
/// golden copy's length changed while it was read; [`Error::NoSpace`]; [`Error::Io`] otherwise, for example if the
/// golden copy is missing. After an error the overlay is unchanged.
pub fn put_back(golden: &Path, overlay: &Path) -> Result<Copied, Error> {
    let started = Instant::now();
    let target = existing_target(overlay)?;
    let (original, status) = open_regular(golden)?;
    if let Some(target) = &target
        && open_regular(target)?.1.identity == status.identity
    {
        return Err(Error::SameFile {
            golden: golden.to_owned(),
            overlay: target.to_owned(),
        });
    }
    let target = target.as_deref().unwrap_or(overlay);
    let (copy, copied) = copy_beside(&original, golden, target)?;
    copy.replace(target)?;
    Ok(Copied {
        elapsed: started.elapsed(),
        ..copied
    })
}

/// Copies `from` to a new file `to` of mode 0600, which only this user can read.
///
/// The copy and its directory are synced to the disk, because golden copies, which are made by this function, must
/// survive a crash.
///
/// # Errors
///
/// After an error, `to` doesn't exist or is the file that existed before: [`Error::AlreadyExists`] if `to` exists, even
/// as a dangling symbolic link; [`Error::NotRegular`] for `from`; [`Error::Changed`] if its length changed while it was
/// read; [`Error::NoSpace`]; [`Error::Io`] otherwise.
pub fn copy_private(from: &Path, to: &Path) -> Result<Copied, Error> {
    let (original, _) = open_regular(from)?;
    copy_private_of(&original, from, to)
}

/// Like [`copy_private`], for a file that is open for reading. `name` is its name in errors.
///
/// # Errors
///
/// Those of [`copy_private`].
pub(crate) fn copy_private_of(from: &File, name: &Path, to: &Path) -> Result<Copied, Error> {
    let started = Instant::now();
    if to.symlink_metadata().is_ok() {
        return Err(Error::AlreadyExists {
            path: to.to_owned(),
        });
    }
    let (copy, copied) = copy_beside(from, name, to)?;
    copy.file()
        .sync_all()
        .map_err(Error::io("sync", copy.path()))?;
    copy.place(to).map_err(|error| match error.source.kind() {
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path: error.path },
        _ => error.into(),
    })?;
    let directory = directory_of(to);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("sync", directory))?;
    Ok(Copied {
        elapsed: started.elapsed(),
        ..copied
    })
}

/// The path that `overlay` leads to through symbolic links, or `None` if it doesn't exist. A dangling link is an error,
/// because replacing the link is not what the caller asked for.
fn existing_target(overlay: &Path) -> Result<Option<PathBuf>, Error> {
    match overlay.canonicalize() {
        Ok(target) => Ok(Some(target)),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && overlay.symlink_metadata().is_err() =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::io("find", overlay)(error)),
    }
}

/// A complete copy of `from` in the directory of `target`, still under a temporary name.
fn copy_beside(
    from: &File,
    name: &Path,
    target: &Path,
) -> Result<(TemporarySibling, Copied), Error> {
    let directory = directory_of(target);
    let copy = TemporarySibling::create(directory)?;
    let copied = fill(copy.file(), directory, from, name)?;
    Ok((copy, copied))
}
