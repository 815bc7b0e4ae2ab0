//! One entry of an archive.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::digest::Digest;

/// What an entry of an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// One file, directory or symbolic link that was transferred.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileEntry {
    /// Its path beneath what was transferred; empty for that itself.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Its permissions, at most `0o777`; `0o777` for a symbolic link.
    pub mode: u32,
    /// The bytes of a regular file; zero for anything else.
    pub size: u64,
    /// The digest of a regular file's bytes, or of a symbolic link's target; `None` for a directory.
    pub sha256: Option<Digest>,
}

/// What the headers of an archive say of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Normalised: no `.`, no slash at either end; empty for the root.
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryKind,
    pub(super) mode: u32,
    /// Zero for anything but a regular file.
    pub(super) size: u64,
    /// Whole seconds since 1970.
    pub(super) mtime: u64,
    /// A symbolic link's target; empty for anything else.
    pub(super) target: Vec<u8>,
}

impl Entry {
    /// What the manifest says of it. `sha256` is that of a regular file.
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

/// The permissions that an entry keeps of a file's mode: no set-id bits, no sticky bit.
///
/// The owner of a directory keeps all rights to it: without them neither what is in it could be extracted, nor the whole
/// be removed.
pub(super) fn kept_mode(kind: EntryKind, mode: u32) -> u32 {
    match kind {
        EntryKind::File => mode & 0o777,
        EntryKind::Directory => mode & 0o777 | 0o700,
        EntryKind::Symlink => 0o777,
    }
}
