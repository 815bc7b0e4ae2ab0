//! Putting an overlay back from its golden copy, and making that copy.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::beside::Beside;
use super::copy::{CopyMethod, Failure, fill};
use super::file::open_regular;
use super::{Change, Error, FileIdentity};

/// A copy that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// How it was made.
    pub method: CopyMethod,
    /// How many bytes the copy has, holes included: as many as the original.
    pub length: u64,
    /// How many bytes were written to it. None for a reflink.
    pub bytes_copied: u64,
    /// Which file it is: never the one that had its name before.
    pub identity: FileIdentity,
    /// How long it took.
    pub elapsed: Duration,
}

/// Replaces `overlay` by a new file with the bytes of `golden`, in one step.
///
/// The new file is made beside the old one, of mode 0600, and renamed into its place: whoever still has the old one
/// open keeps the old bytes. An overlay that is missing is made. If `overlay` is a symbolic link, what it leads to is
/// replaced. The overlay must not be open in a VMM, which would go on with the old file.
///
/// The new file's time of modification is the epoch's beginning. So a write to it shows in that time however soon it
/// comes: a kernel without fine-grained timestamps (before 6.13) gives two writes within one tick the same.
///
/// Nothing is synced to the disk. After a crash of the host the overlay may have the old bytes, the new ones or
/// fewer, but no VMM survives such a crash, and the next boot puts the overlay back or finds its digest wrong.
///
/// # Errors
///
/// The overlay is as it was after each: [`Error::SameFile`] if the two are one file; [`Error::NotRegular`] for
/// either; [`Error::Changed`] if the golden copy changed while it was read; [`Error::NoSpace`]; [`Error::Io`]
/// otherwise, such as a golden copy that is missing.
pub fn put_back(golden: &Path, overlay: &Path) -> Result<Copied, Error> {
    let started = Instant::now();
    let target = existing_target(overlay)?;
    if let Some(target) = &target {
        refuse_same_file(golden, target)?;
    }
    let target = target.as_deref().unwrap_or(overlay);
    let (copy, copied) = copy_beside(golden, target)?;
    copy.file()
        .set_modified(SystemTime::UNIX_EPOCH)
        .map_err(Error::io("set the time of", copy.path()))?;
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
/// even a link that leads nowhere; [`Error::NotRegular`] for `from`; [`Error::Changed`] if it changed while it was
/// read; [`Error::NoSpace`]; [`Error::Io`] otherwise.
pub fn copy_private(from: &Path, to: &Path) -> Result<Copied, Error> {
    let started = Instant::now();
    if to.symlink_metadata().is_ok() {
        return Err(Error::AlreadyExists {
            path: to.to_owned(),
        });
    }
    let (copy, copied) = copy_beside(from, to)?;
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

fn refuse_same_file(golden: &Path, overlay: &Path) -> Result<(), Error> {
    let identity = |path: &Path| open_regular(path).map(|(_, stamp)| stamp.identity);
    if identity(golden)? == identity(overlay)? {
        return Err(Error::SameFile {
            golden: golden.to_owned(),
            overlay: overlay.to_owned(),
        });
    }
    Ok(())
}

/// A copy of `from` in the directory of `target`, complete and of the right length, but without its name yet.
fn copy_beside(from: &Path, target: &Path) -> Result<(Beside, Copied), Error> {
    let started = Instant::now();
    let (original, stamp) = open_regular(from)?;
    let directory = directory_of(target);
    let copy = Beside::create(directory)?;
    let (method, bytes_copied) =
        fill(copy.file(), &original, stamp.length).map_err(|failure| match failure {
            Failure::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let before = stamp.length;
                Error::changed(from, Change::Length { before })
            }
            Failure::Read(error) => Error::io("read", from)(error),
            Failure::Write(source) if is_no_space(&source) => Error::NoSpace {
                directory: directory.to_owned(),
                length: stamp.length,
                source,
            },
            Failure::Write(error) => Error::io("write", copy.path())(error),
        })?;
    stamp.verify(from)?;
    let metadata = copy
        .file()
        .metadata()
        .map_err(Error::io("read the attributes of", copy.path()))?;
    if metadata.len() != stamp.length {
        let before = stamp.length;
        return Err(Error::changed(from, Change::Length { before }));
    }
    let copied = Copied {
        method,
        length: stamp.length,
        bytes_copied,
        identity: FileIdentity::from(&metadata),
        elapsed: started.elapsed(),
    };
    Ok((copy, copied))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
