//! What is compared: a release that this crate knows, or a document.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use crate::spec::{self, Contract, Release, supported};

/// A contract with the name under which it was asked for.
#[derive(Clone, Debug)]
pub struct Document {
    /// The release, or the path of the file. What of a path is no text is replaced.
    pub name: String,
    /// The contract: that of a release as its server has it, that of a file as it is.
    pub contract: Contract,
    /// Whether the contract is that of a release, with its corrections.
    pub corrected: bool,
}

/// What was named can't be compared.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The crate has no contract of this release.
    #[error("{release} is not among the releases with a contract: {}", known())]
    UnknownRelease {
        /// The release that was asked for.
        release: Release,
    },
    /// The name is neither a release's nor that of a file in the working directory.
    #[error(
        "`{name}` is no file here, and not among the releases with a contract: {}",
        known()
    )]
    Absent {
        /// What was asked for.
        name: String,
    },
    /// The file can't be read as a contract.
    #[error(transparent)]
    File(#[from] spec::Error),
}

impl Document {
    /// The release that `name` is the tag of (`v53.0`), corrected, or else the file at the path `name`, as it is. A file
    /// that is called like a release has to be named with a folder: `./v53.0`.
    ///
    /// # Errors
    ///
    /// Every variant of [`DocumentError`].
    pub fn named(name: &OsStr) -> Result<Document, DocumentError> {
        match name.to_str().and_then(|name| name.parse().ok()) {
            Some(release) => Document::release(release),
            None => Document::read(Path::new(name)),
        }
    }

    /// The contract of `release` as its server has it.
    ///
    /// # Errors
    ///
    /// [`DocumentError::UnknownRelease`].
    pub fn release(release: Release) -> Result<Document, DocumentError> {
        let contract =
            supported::contract(release).ok_or(DocumentError::UnknownRelease { release })?;
        Ok(Document {
            name: release.to_string(),
            contract,
            corrected: true,
        })
    }

    /// The document in the file at `path`, upstream's or a contract, without corrections.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Absent`] for a mere name, without a folder or an extension, where there is no such file, and
    /// else [`DocumentError::File`].
    pub fn read(path: &Path) -> Result<Document, DocumentError> {
        let name = path.to_string_lossy().into_owned();
        let contract = spec::read_any(path).map_err(|error| match &error {
            spec::Error::File { source, .. }
                if source.kind() == io::ErrorKind::NotFound && is_bare(path) =>
            {
                DocumentError::Absent { name: name.clone() }
            }
            _ => error.into(),
        })?;
        Ok(Document {
            name,
            contract,
            corrected: false,
        })
    }
}

/// Whether the path is a name as a release may have it, rightly or not: `v99`, `53.0`.
fn is_bare(path: &Path) -> bool {
    let in_folder = path.components().count() != 1;
    let has_extension = path.extension().is_some_and(|extension| {
        let digits = extension.as_encoded_bytes();
        !digits.iter().all(u8::is_ascii_digit)
    });
    !in_folder && !has_extension
}

/// The releases with a contract, as a list for people.
fn known() -> String {
    let known: Vec<String> = supported::releases()
        .map(|release| release.to_string())
        .collect();
    known.join(", ")
}
