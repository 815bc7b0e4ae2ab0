//! What can go wrong with a file's bytes, by what the caller can do next.

use std::io;
use std::path::{Path, PathBuf};

use super::qcow2::Problem;

/// Why a file could not be digested or copied. Nothing that was there before is lost by any of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation: see the cause.
    #[error("could not {operation} {path:?}")]
    Io {
        /// What was asked of the system, as a verb.
        operation: &'static str,
        /// The file or directory it was asked of.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path leads to a directory, a pipe, a device or a socket: its bytes aren't a disk's.
    #[error("{path:?} is not a regular file; what a pipe gives has to be copied into one first")]
    NotRegular {
        /// The path that was given.
        path: PathBuf,
    },
    /// The file changed while it was read or held, so no digest and no copy of it would be true. Try again once no
    /// process writes to it.
    #[error("{path:?} changed meanwhile: {change}")]
    Changed {
        /// The file that was read.
        path: PathBuf,
        /// What was seen to change.
        change: Change,
    },
    /// The overlay and its golden copy are one file, by two names or one: there is nothing to put back from.
    #[error("the overlay {overlay:?} and its golden copy {golden:?} are the same file")]
    SameFile {
        /// The path of the golden copy.
        golden: PathBuf,
        /// The path of the overlay.
        overlay: PathBuf,
    },
    /// The file is no qcow2 image that can be used.
    #[error("{path:?} cannot be used as a qcow2 image: {problem}")]
    Qcow2 {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
    /// No read lease is to be had on the file, so nothing would show that it is written to.
    #[error(
        "no lease is to be had on {path:?}: a process has it open for writing, it is not this user's, or its filesystem has none that hold"
    )]
    NoLease {
        /// The file.
        path: PathBuf,
    },
    /// A copy would replace something that is there already.
    #[error("{path:?} exists already")]
    AlreadyExists {
        /// The path that the copy was to have.
        path: PathBuf,
    },
    /// The filesystem, or the owner's quota on it, has no room for the copy. What was written of it is gone again.
    #[error("no space for the copy of {length} bytes in {directory:?}")]
    NoSpace {
        /// The directory of the copy.
        directory: PathBuf,
        /// The length of the file that was to be copied, in bytes. A sparse one needs less.
        length: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// What was seen to change in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Change {
    /// It was cut off or grew. Files without a length of their own, such as those of `/proc`, look the same.
    #[error("its length was {before} bytes and then {found}")]
    Length {
        /// Its length when it was opened, in bytes.
        before: u64,
        /// Its length afterwards. Where that is the same again, the nearest one that it must have had meanwhile.
        found: u64,
    },
    /// Its backing files aren't those that they were: others are named, or other files have their names.
    #[error("its backing files are no longer the same")]
    Backing,
    /// Its bytes no longer have the digest that they had.
    #[error("its bytes no longer have the same digest")]
    Bytes,
}

impl Error {
    /// For `map_err`: an operation on `path` that the system refused.
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
