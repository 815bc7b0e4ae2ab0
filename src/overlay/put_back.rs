//! Putting an overlay back from its golden copy, and making that copy.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Error;
use super::copy::{Copied, fill};
use super::file::open_regular;
use super::temporary_sibling::TemporarySibling;

/// Replaces `overlay` by a new file with the bytes of `golden`, in one step.
///
/// The new file is made beside the old one, of mode 0600, and renamed into its place: a process that still has the old
/// one open keeps the old bytes. An overlay that is missing is made. If `overlay` is a symbolic link, what it leads to is
/// replaced. The overlay must not be open in a VMM, which would go on with the old file.
///
/// Nothing is synced to the disk. After a crash of the host the overlay may have the old bytes, the new ones or
/// fewer, but no VMM survives such a crash, and the next boot puts the overlay back or finds its digest wrong.
///
/// # Errors
///
/// The overlay is as it was after each: [`Error::SameFile`] if the two are one file; [`Error::NotRegular`] for
/// either; [`Error::Changed`] if the golden copy's length changed while it was read; [`Error::NoSpace`]; [`Error::Io`]
/// otherwise, such as a golden copy that is missing.
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

/// Copies `from` to a new file `to`, of mode 0600, for this user's eyes only.
///
/// Copy and directory are synced to the disk: this is how golden copies are made, and they must outlive a crash.
///
/// # Errors
///
/// There is no `to`, or the one that was there before, after each: [`Error::AlreadyExists`] if something has that name,
/// even a link that leads nowhere; [`Error::NotRegular`] for `from`; [`Error::Changed`] if its length changed while it
/// was read; [`Error::NoSpace`]; [`Error::Io`] otherwise.
pub fn copy_private(from: &Path, to: &Path) -> Result<Copied, Error> {
    let (original, _) = open_regular(from)?;
    copy_private_of(&original, from, to)
}

/// The same as [`copy_private`] for a file that is open for reading. `name` is its name in errors.
///
/// # Errors
///
/// Those of [`copy_private`].
pub fn copy_private_of(from: &File, name: &Path, to: &Path) -> Result<Copied, Error> {
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
    copy.place(to)?;
    let directory = directory_of(to);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("sync", directory))?;
    Ok(Copied {
        elapsed: started.elapsed(),
        ..copied
    })
}

/// What `overlay` leads to through symbolic links, or `None` if nothing has that name. A link that leads nowhere is
/// an error: replacing it would not be what was asked.
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

/// A copy of `from` in the directory of `target`, complete, but without its name yet.
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

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
