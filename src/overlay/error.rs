//! The errors of this module, grouped by what the caller can do next.

use std::io;
use std::path::{Path, PathBuf};

use super::qcow2::Problem;
use crate::files::FileError;

/// Why a file could not be digested or copied. None of these errors leaves a named file lost or half-written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation. The source has the system's error.
    #[error("could not {operation} {path:?}")]
    Io {
        /// The operation that was attempted, as a verb.
        operation: &'static str,
        /// The file or directory of the operation.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The path leads to a directory, a pipe, a device or a socket, and only a regular file can be a disk here.
    #[error("{path:?} is not a regular file; the output of a pipe has to be copied into one first")]
    NotRegular {
        /// The path that was given.
        path: PathBuf,
    },
    /// The file changed while it was read or held, so a digest or copy would not match it. Try again once no process
    /// writes to it.
    #[error("{path:?} changed during the operation: {change}")]
    Changed {
        /// The file that was read.
        path: PathBuf,
        /// The change that was detected.
        change: Change,
    },
    /// The overlay and its golden copy are the same file, under one name or two, so there is no copy to restore from.
    #[error("the overlay {overlay:?} and its golden copy {golden:?} are the same file")]
    SameFile {
        /// The path of the golden copy.
        golden: PathBuf,
        /// The path of the overlay.
        overlay: PathBuf,
    },
    /// The file can't be used as a qcow2 image.
    #[error("{path:?} cannot be used as a qcow2 image: {problem}")]
    Qcow2 {
        /// The image.
        path: PathBuf,
        /// The defect or the unsupported feature.
        problem: Problem,
    },
    /// The kernel granted no read lease on the file, so a later write to it would go unnoticed.
    #[error(
        "no lease was granted on {path:?}: a process has it open for writing, it belongs to another user, or its filesystem is not one of ext4, xfs, btrfs and tmpfs"
    )]
    NoLease {
        /// The file.
        path: PathBuf,
    },
    /// The target of a copy exists already, and is not replaced.
    #[error("{path:?} exists already")]
    AlreadyExists {
        /// The path of the target.
        path: PathBuf,
    },
    /// The filesystem, or the owner's quota on it, has no room for the copy. The incomplete copy was removed.
    #[error("no space in {directory:?} for a copy of {length} bytes")]
    NoSpace {
        /// The directory of the copy.
        directory: PathBuf,
        /// The length of the original, in bytes. A sparse file needs less space than that.
        length: u64,
        /// The system's error.
        source: io::Error,
    },
}

/// A change that was detected in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Change {
    /// The file was truncated or grew. A file whose reported length is not that of its content, as in `/proc`, gives
    /// the same error.
    #[error("its length was {before} bytes and then {found}")]
    Length {
        /// Its length when it was opened, in bytes.
        before: u64,
        /// Its length afterwards, in bytes. If the length is back at `before`, this is the nearest other length that
        /// the file must have had in between.
        found: u64,
    },
    /// The chain of backing files changed: an image names another backing file, or another file has the name of one.
    #[error("its backing files are no longer the same files")]
    Backing,
    /// The bytes no longer have the digest that was taken before.
    #[error("its bytes no longer have the same digest")]
    Bytes,
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Error {
        Error::Io {
            operation: error.operation,
            path: error.path,
            source: error.source,
        }
    }
}

impl Error {
    /// For `map_err`: wraps the system's error for an operation on `path`.
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn changed(path: &Path, change: Change) -> Error {
        Error::Changed {
            path: path.to_owned(),
            change,
        }
    }
}
