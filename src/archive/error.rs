//! [`ArchiveError`]: the errors of packing and extracting, each with its stable [`FileCode`].

use std::io;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::sanitize;

/// The most characters of a file's name in an error.
const SHOWN: usize = 200;

/// Why a tree was not packed or not extracted. After an error of extraction no file of the tree is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The name of an entry, the target of a symbolic link, or the name of the extraction's target can't be used.
    #[error("{name} {fault}")]
    Name {
        /// The name, in quotes and escaped.
        name: String,
        /// What is wrong with the name, as the rest of a sentence.
        fault: &'static str,
    },
    /// An entry is neither a regular file nor a directory nor a symbolic link, or has set-id bits.
    #[error(
        "{name} is {found}: only regular files, directories and symbolic links are transferred"
    )]
    Kind {
        /// The entry's name, in quotes and escaped.
        name: String,
        /// The kind that was found.
        found: &'static str,
    },
    /// The transfer has more than its limits allow.
    #[error("more than {limit} {what}: the first too many is {name}")]
    Limit {
        /// What is limited, such as `entries`.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// The entry that exceeds the limit, in quotes and escaped.
        name: String,
    },
    /// The stream ended before the archive did, or could not be read or written any further.
    #[error("the tar stream broke off")]
    Truncated {
        /// The error of reading or writing the stream.
        source: io::Error,
    },
    /// The stream is damaged, or isn't an archive of the supported form.
    #[error("the tar stream is damaged: {reason}")]
    Damaged {
        /// Which rule the stream breaks.
        reason: &'static str,
    },
    /// The stream's digest isn't the one that its sender states.
    #[error("the tar stream's digest is {found}, not {expected} as its sender says")]
    Digest {
        /// The digest that the sender states.
        expected: Digest,
        /// The digest of the received stream.
        found: Digest,
    },
    /// A file changed while it was packed, so the stream would mix two states of it; or a staged tree was replaced.
    #[error("{name} changed while it was read: {change}")]
    Changed {
        /// The file's name, in quotes and escaped.
        name: String,
        /// The change that was found.
        change: &'static str,
    },
    /// The system refused an operation.
    #[error("{name} could not be {done}")]
    Io {
        /// The refused operation, as a participle.
        done: &'static str,
        /// The file's name, in quotes and escaped.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// The caller cancelled the transfer before the tree got its name.
    #[error("the transfer was given up")]
    Cancelled,
}

/// The stable code of an [`ArchiveError`]. The [list](super#what-is-refused) says what each code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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

    /// The code as text, such as `SANDBOX_FILE_NAME`.
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

    /// The code with this text, if there is one.
    pub(crate) fn of(text: &str) -> Option<FileCode> {
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

    /// Makes an error of a system error, for `map_err`.
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

/// A name as errors show it: in quotes, on one line, with unprintable characters escaped. The root is `"."`.
pub(super) fn shown(name: &[u8]) -> String {
    let name: &[u8] = if name.is_empty() { b"." } else { name };
    sanitize::line(&format!("{:?}", String::from_utf8_lossy(name)), SHOWN)
}
