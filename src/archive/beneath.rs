//! Opens the file to pack ([`open_at`], [`open_beneath`]) or the target to extract to ([`target_at`],
//! [`target_beneath`]) by a path. The `_at` functions trust the path; the `_beneath` functions trust neither the path
//! nor the files below a directory.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::path::{normalized, split};
use super::{ArchiveError, Target};

/// Resolves a path beneath a directory, and through no link of any kind.
pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// The flags for opening a file to pack. NONBLOCK keeps this from waiting for the other end of a fifo.
const PACKED: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Opens the file or directory at `path` for [`pack`](super::pack()). The path is trusted: symbolic links in it are
/// followed.
///
/// # Errors
///
/// - [`Name`](ArchiveError::Name) if nothing is at `path`, or if it leads through a file
/// - [`Kind`](ArchiveError::Kind) for a socket
/// - [`Io`](ArchiveError::Io) for any other error of the system
pub(crate) fn open_at(path: &Path) -> Result<OwnedFd, ArchiveError> {
    let name = path.as_os_str().as_bytes();
    openat(CWD, path, PACKED, Mode::empty()).map_err(|errno| reached(errno, name))
}

/// The target at `path` for [`extract`](super::extract()). Its directory must exist. The path is trusted: symbolic
/// links on the way to that directory are followed.
///
/// # Errors
///
/// As [`open_at`], and [`Name`](ArchiveError::Name) if `path` ends in no name.
pub(crate) fn target_at(path: &Path) -> Result<Target, ArchiveError> {
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

/// Opens the file or directory at `path` beneath `root` for [`pack`](super::pack()). No symbolic link is followed.
///
/// # Errors
///
/// - [`Name`](ArchiveError::Name) if nothing is at `path`, or if it leads out of `root`, through a file or through a
///   symbolic link
/// - [`Kind`](ArchiveError::Kind) for a socket
/// - [`Io`](ArchiveError::Io) for any other error of the system
#[cfg_attr(
    not(feature = "guest"),
    expect(dead_code, reason = "only the dispatcher in the guest calls it")
)]
pub(crate) fn open_beneath(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, ArchiveError> {
    let opened = match normalized(path)? {
        b"" => b".",
        path => path,
    };
    openat2(root, opened, PACKED, Mode::empty(), BENEATH).map_err(|errno| reached(errno, path))
}

/// The target at `path` beneath `root` for [`extract`](super::extract()). Its directory must exist. No symbolic link is
/// followed.
///
/// # Errors
///
/// As [`open_beneath`].
#[cfg_attr(
    not(feature = "guest"),
    expect(dead_code, reason = "only the dispatcher in the guest calls it")
)]
pub(crate) fn target_beneath(root: impl AsFd, path: &[u8]) -> Result<Target, ArchiveError> {
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
