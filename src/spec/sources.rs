//! [`Sources`] records the upstream file of each contract; [`import`] writes both a contract and its record.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Contract, Error, Release, bounded_yaml, load};
use crate::files::replace_file;
use crate::hex::Hex;

/// The path of the API document in the upstream repository.
const UPSTREAM_FILE: &str = "vmm/src/api/openapi/cloud-hypervisor.yaml";

/// The name of the file that lists the sources, in the same folder as the contracts.
const FILE_NAME: &str = "sources.toml";

/// The content of `sources.toml`: the upstream files that the contracts were derived from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Sources {
    /// The source of each contract, by the tag of its release.
    #[serde(default)]
    pub release: BTreeMap<String, Source>,
}

/// The upstream file of one release.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Source {
    /// The release of the file.
    pub tag: Release,
    /// The commit of the tag, as 40 hexadecimal digits, if the importer was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The path of the file in the upstream repository.
    pub file: String,
    /// The SHA-256 of the file's bytes, in hexadecimal.
    pub sha256: String,
}

impl Sources {
    /// Reads `sources.toml` in the directory `from`. Returns an empty list if the file doesn't exist.
    ///
    /// # Errors
    ///
    /// [`Error::File`] and [`Error::TooLarge`] if it can't be read, and [`Error::Sources`] if it doesn't have the form
    /// of such a list.
    pub fn read(from: &Path) -> Result<Sources, Error> {
        let path = from.join(FILE_NAME);
        if !path.exists() {
            return Ok(Sources::default());
        }
        let text = String::from_utf8_lossy(&bounded_yaml::bytes(&path)?).into_owned();
        toml::from_str(&text).map_err(|source| Error::Sources {
            path,
            source: Box::new(source),
        })
    }

    fn write(&self, into: &Path) -> Result<(), Error> {
        let facts = toml::to_string(self).expect("texts in tables with text keys");
        let text = format!(
            "# Written by `chv-sandbox spec import`: the upstream file of each contract.\n\n{facts}"
        );
        write(&into.join(FILE_NAME), &text)
    }
}

/// Derives the contract of `release` from the document `upstream`. Writes the contract to `<release>.json` and its
/// source to `sources.toml`, both in the directory `into`. If the document can't be read as a contract, nothing is
/// written.
///
/// Returns the contract and the path of its file.
///
/// # Errors
///
/// Every variant of [`Error`].
pub fn import(
    upstream: &Path,
    release: Release,
    commit: Option<String>,
    into: &Path,
) -> Result<(Contract, PathBuf), Error> {
    let bytes = bounded_yaml::bytes(upstream)?;
    let contract = load::from_bytes(upstream, &bytes, Some(release))?;
    let mut sources = Sources::read(into)?;
    let sha256 = Hex(&Sha256::digest(&bytes)).to_string();
    let source = Source {
        tag: release,
        commit,
        file: UPSTREAM_FILE.to_owned(),
        sha256,
    };
    sources.release.insert(release.to_string(), source);
    fs::create_dir_all(into).map_err(|source| Error::File {
        verb: "create",
        path: into.to_owned(),
        source,
    })?;
    let path = into.join(format!("{release}.json"));
    write(&path, &contract.canonical())?;
    sources.write(into)?;
    Ok((contract, path))
}

/// Replaces the file at `path` whole. Its mode is that of an ordinary new file: a contract is no secret.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    replace_file(path, text.as_bytes(), 0o666).map_err(|source| Error::File {
        verb: "write",
        path: path.to_owned(),
        source,
    })
}
