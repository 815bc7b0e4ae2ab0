//! [`Document`]: a release or a document that a user names for a comparison.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use crate::spec::{self, Contract, Release, supported};

/// A contract with the name that the user gave.
#[derive(Clone, Debug)]
pub struct Document {
    /// The tag of the release, or the path of the file. Bytes of a path that are not UTF-8 are replaced.
    pub name: String,
    /// The contract. That of a release has its corrections, that of a file does not.
    pub contract: Contract,
    /// Whether the contract is that of a supported release, with its corrections.
    pub corrected: bool,
}

/// Why a name can't be used for a comparison.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// This crate has no contract of the release.
    #[error("{release} is not among the releases with a contract: {}", known())]
    UnknownRelease {
        /// The release that was asked for.
        release: Release,
    },
    /// The name is not the tag of a supported release, and there is no file of that name in the working directory.
    #[error(
        "there is no file `{name}` here, and the releases with a contract are: {}",
        known()
    )]
    Absent {
        /// The name that the user gave.
        name: String,
    },
    /// The file can't be read as a contract.
    #[error(transparent)]
    File(#[from] spec::Error),
}

impl Document {
    /// Returns the contract that `name` stands for: that of a release if it is a tag (`v53.0`), with corrections, or
    /// else that of the file at the path `name`, without corrections. For a file that has the name of a release, give a
    /// path with a folder: `./v53.0`.
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

    /// Returns the contract of `release` with its corrections, which describe its server.
    ///
    /// # Errors
    ///
    /// [`DocumentError::UnknownRelease`] if the release is not supported.
    pub fn release(release: Release) -> Result<Document, DocumentError> {
        let contract =
            supported::contract(release).ok_or(DocumentError::UnknownRelease { release })?;
        Ok(Document {
            name: release.to_string(),
            contract,
            corrected: true,
        })
    }

    /// Reads the document in the file at `path`, which may be upstream's or a canonical contract. No corrections are
    /// applied.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Absent`] if the path has neither a folder nor an extension and there is no such file, and
    /// [`DocumentError::File`] for any other failure.
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

/// Whether the path may be meant as the name of a release, valid or not: `v99`, `53.0`.
fn is_bare(path: &Path) -> bool {
    let in_folder = path.components().count() != 1;
    let has_extension = path.extension().is_some_and(|extension| {
        let digits = extension.as_encoded_bytes();
        !digits.iter().all(u8::is_ascii_digit)
    });
    !in_folder && !has_extension
}

/// Returns the releases with a contract, as a list for readers.
fn known() -> String {
    let known: Vec<String> = supported::releases()
        .map(|release| release.to_string())
        .collect();
    known.join(", ")
}
