//! Where each contract came from, and the import that writes both.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Contract, Error, Release, load, tree};

/// The path of the API document in the upstream repository.
const UPSTREAM_FILE: &str = "vmm/src/api/openapi/cloud-hypervisor.yaml";

/// The name of the list beside the contracts.
const FILE_NAME: &str = "sources.toml";

/// The upstream files that the contracts were derived from: `sources.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// The source of each release's contract.
    #[serde(default)]
    pub release: BTreeMap<String, Source>,
}

/// The upstream file of one release.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The tag.
    pub tag: Release,
    /// The commit that the tag names, in 40 hexadecimal digits, if it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The path of the file in the upstream repository.
    pub file: String,
    /// The SHA-256 of the file's bytes, in hexadecimal.
    pub sha256: String,
}

impl Sources {
    /// Reads the list in the directory `from`; empty when there is none yet.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::TooLarge`], or [`Error::Sources`] for a file that isn't such a list.
    pub fn read(from: &Path) -> Result<Sources, Error> {
        let path = from.join(FILE_NAME);
        if !path.exists() {
            return Ok(Sources::default());
        }
        let text = String::from_utf8_lossy(&tree::bytes(&path)?).into_owned();
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

/// Derives the contract of `release` from the document `upstream`, and writes `<release>.json` and its entry of
/// `sources.toml` into the directory `into`. Nothing is written when the document isn't understood.
///
/// Returns the contract and the file it was written to.
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
    let bytes = tree::bytes(upstream)?;
    let contract = load::from_bytes(upstream, &bytes, Some(release))?;
    let mut sources = Sources::read(into)?;
    let sha256 = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
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

/// Writes beside the file first, so that a reader never sees half of it.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|source| {
            // What is left of the attempt is of no use, and whether it goes is not the error to report.
            let _ = fs::remove_file(&beside);
            Error::File {
                verb: "write",
                path: path.to_owned(),
                source,
            }
        })
}
