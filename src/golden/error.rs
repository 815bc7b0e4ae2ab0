//! [`Error`]: why a golden snapshot can't be used.

use std::io;
use std::path::PathBuf;

use super::{KeyError, Part, PublicKey};
use crate::overlay::Digest;
use crate::{machine, overlay};

/// Why a golden snapshot can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder or one of the golden snapshot's files doesn't exist or can't be read.
    #[error("the golden snapshot needs {}, which cannot be read", path.display())]
    Missing {
        /// The folder or file.
        path: PathBuf,
        /// Why it can't be read.
        source: io::Error,
    },
    /// The file isn't JSON of a manifest's shape.
    #[error("{} is not a manifest", path.display())]
    Malformed {
        /// The manifest's path.
        path: PathBuf,
        /// What is wrong with it, with line and column.
        source: serde_json::Error,
    },
    /// The manifest has another format than the one that this version of the library reads.
    #[error(
        "{} has format {format}, this version reads {expected} only: mint the golden snapshot again",
        path.display()
    )]
    Format {
        /// The manifest's path.
        path: PathBuf,
        /// The manifest's format.
        format: u32,
        /// The format that this version reads.
        expected: u32,
    },
    /// A file, most often the manifest, is well-formed but can't be used.
    #[error("{} cannot be used: {reason}", path.display())]
    Refused {
        /// The file's path.
        path: PathBuf,
        /// Why it can't be used.
        reason: String,
    },
    /// The configured public key can't be used, so the signature can't be verified.
    #[error("the golden snapshot's signature cannot be verified")]
    Key(#[source] KeyError),
    /// A signature is required, and there is none.
    #[error("{} is missing: the golden snapshot is not signed, and a signature is required", path.display())]
    Unsigned {
        /// The path where the signature would be.
        path: PathBuf,
    },
    /// The signature file doesn't have a signature of this manifest by the configured key.
    #[error("{} is not a signature of the manifest by {key}", path.display())]
    BadSignature {
        /// The signature's path.
        path: PathBuf,
        /// The configured key.
        key: Box<PublicKey>,
    },
    /// The manifest is no longer the one that was opened.
    #[error(
        "{} was changed since it was opened: put it back, or shut the sandbox down and boot it from the present \
         manifest",
        path.display()
    )]
    ManifestChanged {
        /// The manifest's path.
        path: PathBuf,
    },
    /// A file, the VMM or the host differs from the manifest. Nothing was restored.
    #[error("the manifest's {field} is {expected}, found {found}: {}", remedy(*part))]
    Mismatch {
        /// The part of the golden snapshot that differs.
        part: Part,
        /// The field of the manifest, such as `snapshot.state.fsverity`.
        field: String,
        /// The field's value in the manifest.
        expected: String,
        /// The value that was found.
        found: String,
    },
    /// A file of the golden snapshot can't be digested.
    #[error("a file of the golden snapshot cannot be digested")]
    Digest(#[source] overlay::Error),
    /// `config.json` or `state.json` has something that no mint writes. No VMM was given the snapshot.
    #[error("the golden snapshot's config.json or state.json is not as a mint writes it")]
    Snapshot(#[source] machine::Error),
    /// The memory can't be sealed or, if there is too little memory for a sealed copy, can't be held under a lease.
    #[error(
        "the golden snapshot's memory can be neither sealed nor leased, so its bytes may change"
    )]
    Memory(#[source] overlay::Error),
    /// Another process keeps writing to a file, so the file's bytes can't be proved.
    #[error("another process keeps writing to a file of the golden snapshot in {}", directory.display())]
    HoldLost {
        /// The golden snapshot's folder.
        directory: PathBuf,
    },
    /// The manifest's digest is not the one that the configuration requires.
    #[error(
        "{} has the digest {found}, and {expected} is required: this is not the golden snapshot that is pinned",
        path.display()
    )]
    NotPinned {
        /// The manifest's path.
        path: PathBuf,
        /// The required digest.
        expected: Digest,
        /// The manifest's digest.
        found: Digest,
    },
    /// A fact about this host or its VMM can't be determined, so it can't be compared with the manifest.
    #[error("cannot find out {what} from {}", path.display())]
    Host {
        /// The fact.
        what: &'static str,
        /// The file that should tell it.
        path: PathBuf,
        /// Why it can't be determined.
        source: io::Error,
    },
    /// A file of the golden snapshot can't be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file's path.
        path: PathBuf,
        /// Why it can't be written.
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

    /// Whether this is a [`Mismatch`](Error::Mismatch) of a disk itself, which a verification after a reset compares as
    /// well. For a backing file of a disk this returns false: a verification does not compare backing files.
    pub(crate) fn is_of_a_disk(&self) -> bool {
        matches!(
            self,
            Error::Mismatch {
                part: Part::Disk(_),
                ..
            }
        )
    }
}

/// The advice to an operator about a mismatch.
fn remedy(part: Part) -> &'static str {
    match part {
        Part::Host => {
            "use the host and the VMM that the golden snapshot was made with, or mint it again here"
        }
        _ => "put the file back as it was, or mint the golden snapshot again",
    }
}
