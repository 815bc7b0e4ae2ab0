//! One entry of an archive: [`FileEntry`] for callers, [`Entry`] as the headers have it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::digest::Digest;

/// The kind of an entry of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// One transferred file, directory or symbolic link, in the manifest of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileEntry {
    /// The path relative to the transferred file or directory; empty for that one itself.
    pub path: PathBuf,
    /// The kind of the entry.
    pub kind: EntryKind,
    /// The permissions, at most `0o777`; `0o777` for a symbolic link.
    pub mode: u32,
    /// The size of a regular file in bytes; 0 for the other kinds.
    pub size: u64,
    /// The digest of a regular file's bytes, or of a symbolic link's target; `None` for a directory.
    pub sha256: Option<Digest>,
}

/// An entry as the headers of an archive describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The normalised path: no `.`, no slash at either end; empty for the root.
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryKind,
    pub(super) mode: u32,
    /// The size of a regular file in bytes; 0 for the other kinds.
    pub(super) size: u64,
    /// The time of the last change, in whole seconds since 1970.
    pub(super) mtime: u64,
    /// The target of a symbolic link; empty for the other kinds.
    pub(super) target: Vec<u8>,
}

impl Entry {
    /// The entry for the manifest. `sha256` is the digest of a regular file.
    pub(super) fn listed(&self, sha256: Option<Digest>) -> FileEntry {
        let sha256 = match self.kind {
            EntryKind::File => sha256,
            EntryKind::Symlink => Some(Digest::of(&self.target)),
            EntryKind::Directory => None,
        };
        FileEntry {
            path: PathBuf::from(OsStr::from_bytes(&self.path)),
            kind: self.kind,
            mode: self.mode,
            size: self.size,
            sha256,
        }
    }
}

/// The permissions that an entry keeps of a file's mode: without set-id and sticky bits.
///
/// The owner of a directory always has all rights. Without them the directory's entries couldn't be extracted, and the
/// tree couldn't be removed.
pub(super) fn kept_mode(kind: EntryKind, mode: u32) -> u32 {
    match kind {
        EntryKind::File => mode & 0o777,
        EntryKind::Directory => mode & 0o777 | 0o700,
        EntryKind::Symlink => 0o777,
    }
}
