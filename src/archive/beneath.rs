//! What a path leads to: one of the caller's own, or one beneath a directory that others may write to.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::path::{normalized, split};
use super::{ArchiveError, Target};

/// Beneath a directory, through no link of any kind.
pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// How a file that is to be packed is opened: without waiting for a fifo's other end.
const PACKED: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// The regular file or directory at `path`, to be [packed](super::pack()). The path is the caller's own: symbolic links in it
/// are followed.
///
/// # Errors
///
/// [`Name`](ArchiveError::Name) when the path leads nowhere, [`Kind`](ArchiveError::Kind), [`Io`](ArchiveError::Io).
pub fn open_at(path: &Path) -> Result<OwnedFd, ArchiveError> {
    let name = path.as_os_str().as_bytes();
    openat(CWD, path, PACKED, Mode::empty()).map_err(|errno| reached(errno, name))
}

/// The name at `path`, for what is [extracted](super::extract()). Its directory has to be there; the path to that is the
/// caller's own, and symbolic links in it are followed.
///
/// # Errors
///
/// As with [`open_at`].
pub fn target_at(path: &Path) -> Result<Target, ArchiveError> {
    let whole = path.as_os_str().as_bytes();
    let Some(name) = path.file_name() else {
        return Err(ArchiveError::name(whole, "ends in no name"));
    };
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let opened = openat(CWD, directory, DIRECTORY, Mode::empty())
        .map_err(|errno| reached(errno, directory.as_os_str().as_bytes()))?;
    Target::new(opened, name.as_bytes())
}

/// The regular file or directory at `path` beneath `root`, to be [packed](super::pack()). No symbolic link is followed.
///
/// # Errors
///
/// [`Name`](ArchiveError::Name) when the path leads nowhere, out of `root` or through a symbolic link,
/// [`Kind`](ArchiveError::Kind), [`Io`](ArchiveError::Io).
pub fn open_beneath(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, ArchiveError> {
    let opened = match normalized(path)? {
        b"" => b".",
        path => path,
    };
    openat2(root, opened, PACKED, Mode::empty(), BENEATH).map_err(|errno| reached(errno, path))
}

/// The name at `path` beneath `root`, for what is [extracted](super::extract()). Its directory has to be there. No symbolic
/// link is followed.
///
/// # Errors
///
/// As with [`open_beneath`].
pub fn target_beneath(root: impl AsFd, path: &[u8]) -> Result<Target, ArchiveError> {
    let (directory, name) = split(normalized(path)?);
    let directory: &[u8] = if directory.is_empty() {
        b"."
    } else {
        directory
    };
    let opened = openat2(root, directory, DIRECTORY, Mode::empty(), BENEATH)
        .map_err(|errno| reached(errno, directory))?;
    Target::new(opened, name)
}

fn reached(errno: Errno, path: &[u8]) -> ArchiveError {
    match errno {
        Errno::NOENT => ArchiveError::name(path, "is not there"),
        Errno::NOTDIR => ArchiveError::name(path, "leads through a file that is no directory"),
        Errno::NXIO => ArchiveError::kind(path, "a socket"),
        Errno::LOOP | Errno::XDEV => ArchiveError::name(path, "leads through a symbolic link"),
        _ => ArchiveError::io("opened", path)(errno),
    }
}
