//! What can go wrong with an archive, by its stable code.

use std::io;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::sanitize;

/// Most characters of a file's name in an error.
const SHOWN: usize = 200;

/// Why a tree was not packed or not extracted. Nothing of it is at its target after any of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// An entry, the target of a symbolic link, or what the archive becomes has a name that can't be used.
    #[error("{name} {fault}")]
    Name {
        /// The name, in quotes and escaped.
        name: String,
        /// What is wrong with it, as the rest of a sentence.
        fault: &'static str,
    },
    /// An entry is neither a regular file nor a directory nor a symbolic link, or has set-id bits.
    #[error(
        "{name} is {found}: only regular files, directories and symbolic links are transferred"
    )]
    Kind {
        /// The entry's name, in quotes and escaped.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// There is more than the caller's limits allow.
    #[error("more than {limit} {what}: the first too many is {name}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: u64,
        /// The entry with which it was too much, in quotes and escaped.
        name: String,
    },
    /// The stream ended before the archive did, or could not be read or written any further.
    #[error("the tar stream broke off")]
    Truncated {
        /// Why.
        source: io::Error,
    },
    /// The stream is not the archive that was packed: it is damaged, or not of the form that is taken.
    #[error("the tar stream is damaged: {reason}")]
    Damaged {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The stream is another one than its sender says.
    #[error("the tar stream's digest is {found}, not {expected} as its sender says")]
    Digest {
        /// The digest that its sender gave.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// A file changed while it was packed, so no archive of it would be true.
    #[error("{name} changed while it was read: {change}")]
    Changed {
        /// The file's name, in quotes and escaped.
        name: String,
        /// What was seen to change.
        change: &'static str,
    },
    /// The system refused an operation: see the cause.
    #[error("{name} could not be {done}")]
    Io {
        /// What was asked of the system, as a participle.
        done: &'static str,
        /// The file's name, in quotes and escaped.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The caller gave the transfer up before its last step.
    #[error("the transfer was given up")]
    Cancelled,
}

/// The stable codes of the errors with files: see the [table](super#what-is-refused).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileCode {
    /// `SANDBOX_FILE_NAME`.
    Name,
    /// `SANDBOX_FILE_KIND`.
    Kind,
    /// `SANDBOX_FILE_LIMIT`.
    Limit,
    /// `SANDBOX_FILE_TRUNCATED`.
    Truncated,
    /// `SANDBOX_FILE_DIGEST`.
    Digest,
    /// `SANDBOX_FILE_IO`.
    Io,
}

impl FileCode {
    /// Every code.
    pub const ALL: [FileCode; 6] = [
        FileCode::Name,
        FileCode::Kind,
        FileCode::Limit,
        FileCode::Truncated,
        FileCode::Digest,
        FileCode::Io,
    ];

    /// The code's text.
    pub const fn text(self) -> &'static str {
        match self {
            FileCode::Name => "SANDBOX_FILE_NAME",
            FileCode::Kind => "SANDBOX_FILE_KIND",
            FileCode::Limit => "SANDBOX_FILE_LIMIT",
            FileCode::Truncated => "SANDBOX_FILE_TRUNCATED",
            FileCode::Digest => "SANDBOX_FILE_DIGEST",
            FileCode::Io => "SANDBOX_FILE_IO",
        }
    }

    /// The code with this text.
    pub fn of(text: &str) -> Option<FileCode> {
        FileCode::ALL.into_iter().find(|code| code.text() == text)
    }
}

impl ArchiveError {
    /// The error's stable code.
    pub fn code(&self) -> FileCode {
        match self {
            ArchiveError::Name { .. } => FileCode::Name,
            ArchiveError::Kind { .. } => FileCode::Kind,
            ArchiveError::Limit { .. } => FileCode::Limit,
            ArchiveError::Truncated { .. } | ArchiveError::Cancelled => FileCode::Truncated,
            ArchiveError::Damaged { .. } | ArchiveError::Digest { .. } => FileCode::Digest,
            ArchiveError::Changed { .. } | ArchiveError::Io { .. } => FileCode::Io,
        }
    }

    pub(super) fn name(name: &[u8], fault: &'static str) -> ArchiveError {
        ArchiveError::Name {
            name: shown(name),
            fault,
        }
    }

    pub(super) fn kind(name: &[u8], found: &'static str) -> ArchiveError {
        ArchiveError::Kind {
            name: shown(name),
            found,
        }
    }

    pub(super) fn changed(name: &[u8], change: &'static str) -> ArchiveError {
        ArchiveError::Changed {
            name: shown(name),
            change,
        }
    }

    /// Makes an error of what the system said.
    pub(super) fn io(done: &'static str, name: &[u8]) -> impl FnOnce(Errno) -> ArchiveError {
        move |errno| ArchiveError::Io {
            done,
            name: shown(name),
            source: errno.into(),
        }
    }

    pub(super) fn damaged(reason: &'static str) -> ArchiveError {
        ArchiveError::Damaged { reason }
    }
}

/// A name as errors show it: in quotes, on one line, with whatever isn't printable escaped. The root is `"."`.
pub(super) fn shown(name: &[u8]) -> String {
    let name: &[u8] = if name.is_empty() { b"." } else { name };
    sanitize::line(&format!("{:?}", String::from_utf8_lossy(name)), SHOWN)
}
