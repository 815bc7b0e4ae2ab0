//! Reports as JSON, of which each says the version of its schema.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a text is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// It isn't JSON of this shape.
    #[error("it is no {kind}")]
    Malformed {
        /// What it should be.
        kind: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
    /// It is of another version of the schema.
    #[error("it has schema_version {found}, not {expected}")]
    Version {
        /// The version.
        found: u64,
        /// The only one that is read.
        expected: u32,
    },
}

/// Reads a report of this kind.
pub(crate) fn parse<T: DeserializeOwned>(
    json: &[u8],
    kind: &'static str,
    expected: u32,
) -> Result<T, ReportError> {
    #[derive(Deserialize)]
    struct Header {
        schema_version: u64,
    }
    let malformed = |source| ReportError::Malformed { kind, source };
    // Another version has other fields: to name the first of them would explain nothing.
    let Header { schema_version } = serde_json::from_slice(json).map_err(malformed)?;
    if schema_version != u64::from(expected) {
        let found = schema_version;
        return Err(ReportError::Version { found, expected });
    }
    serde_json::from_slice(json).map_err(malformed)
}
