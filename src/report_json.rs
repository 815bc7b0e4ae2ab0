//! Reads reports from JSON. Each report names the version of its schema; [`ReportError`] says why a text is refused.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a text can't be read as a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The text isn't JSON, or not JSON of this report's shape.
    #[error("the text is not a {kind}")]
    Malformed {
        /// The kind of report that was expected.
        kind: &'static str,
        /// What is wrong with the text, with line and column.
        source: serde_json::Error,
    },
    /// The report has another version of the schema.
    #[error("the report has schema_version {found}, this program reads only {expected}")]
    Version {
        /// The report's version.
        found: u64,
        /// The only version that is read.
        expected: u32,
    },
}

/// Reads a report with the schema version `expected`. `kind` names the report in errors.
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
    // The version is checked first: an error about an unknown field of another version would not explain the refusal.
    let Header { schema_version } = serde_json::from_slice(json).map_err(malformed)?;
    if schema_version != u64::from(expected) {
        let found = schema_version;
        return Err(ReportError::Version { found, expected });
    }
    serde_json::from_slice(json).map_err(malformed)
}
