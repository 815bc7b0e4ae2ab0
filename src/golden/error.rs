//! Why a golden snapshot can't be used.

use std::io;
use std::path::PathBuf;

use super::{KeyError, Part, PublicKey};
use crate::overlay::Digest;
use crate::{machine, overlay};

/// A golden snapshot can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder, or a file of it, isn't there or can't be read.
    #[error("the golden snapshot needs {}, which cannot be read", path.display())]
    Missing {
        /// What is missing.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest isn't one.
    #[error("{} is not a manifest", path.display())]
    Malformed {
        /// The manifest.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// The manifest has another format than this version writes.
    #[error("{} has format {format}, this version reads {expected} only: mint the golden snapshot again", path.display())]
    Format {
        /// The manifest.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The format that this version reads.
        expected: u32,
    },
    /// The manifest can't be used although it is well-formed.
    #[error("{} cannot be used: {reason}", path.display())]
    Refused {
        /// The manifest.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The key by which the manifest has to be signed can't be used.
    #[error("the golden snapshot's signature cannot be verified")]
    Key(#[source] KeyError),
    /// A signature was asked for, and there is none.
    #[error("{} is missing: the golden snapshot is not signed, and has to be", path.display())]
    Unsigned {
        /// Where the signature would be.
        path: PathBuf,
    },
    /// The signature isn't one of this manifest by the key that was given.
    #[error("{} is not a signature of the manifest by {key}", path.display())]
    BadSignature {
        /// The signature.
        path: PathBuf,
        /// The key that it should be by.
        key: Box<PublicKey>,
    },
    /// The manifest isn't the one that was opened any more.
    #[error("{} was changed since it was opened: put it back, or shut the sandbox down and boot it from what is there now", path.display())]
    ManifestChanged {
        /// The manifest.
        path: PathBuf,
    },
    /// Something isn't what the manifest says of it. Nothing was restored.
    #[error("the manifest's {field} is {expected}, found {found}: {}", remedy(*part))]
    Mismatch {
        /// What it is.
        part: Part,
        /// Where the manifest says it, as `snapshot.state.fsverity`.
        field: String,
        /// What the manifest says.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A file of the golden snapshot can't be digested.
    #[error("a file of the golden snapshot cannot be digested")]
    Digest(#[source] overlay::Error),
    /// `config.json` or `state.json` isn't one of a VM that a mint makes. Nothing was started.
    #[error("the golden snapshot does not hold what a mint makes")]
    Snapshot(#[source] machine::Error),
    /// The memory can't be sealed; or, where there is too little memory for that, not be held under a lease.
    #[error("the golden snapshot's memory cannot be kept from changing")]
    Memory(#[source] overlay::Error),
    /// Another process writes to a file again and again, so its bytes aren't known.
    #[error("a file of the golden snapshot in {} is being written to", directory.display())]
    HoldLost {
        /// The golden snapshot.
        directory: PathBuf,
    },
    /// The manifest isn't the one whose digest was given.
    #[error("{} is {found}, and has to be {expected}: this is another golden snapshot than the one that is pinned", path.display())]
    NotPinned {
        /// The manifest.
        path: PathBuf,
        /// The digest that was given.
        expected: Digest,
        /// Its digest.
        found: Digest,
    },
    /// Something about this machine or its VMM can't be found out, so it can't be compared with the manifest.
    #[error("cannot find out {what} from {}", path.display())]
    Host {
        /// What was asked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The manifest couldn't be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The manifest.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn mismatch(
        part: Part,
        field: impl Into<String>,
        expected: impl ToString,
        found: impl ToString,
    ) -> Error {
        Error::Mismatch {
            part,
            field: field.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// Whether a disk itself isn't what the manifest says: what a verification compares too. What lies beneath a disk
    /// is compared nowhere else.
    pub fn is_of_a_disk(&self) -> bool {
        matches!(
            self,
            Error::Mismatch {
                part: Part::Disk(_),
                ..
            }
        )
    }
}

/// What an operator can do about a mismatch.
fn remedy(part: Part) -> &'static str {
    match part {
        Part::Host => "run it where and with what it was made, or mint it again here",
        _ => "put the file back as it was, or mint the golden snapshot again",
    }
}
