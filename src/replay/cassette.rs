//! [`Cassette`]: the requests to a VMM and its answers, kept as a JSON file that is easy to compare.

use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::file_format::{WireExchange, WireFile};
use super::{Error, json_text};
use crate::client::Release;
use crate::files::{ReadError, Symlinks, read_bounded, replace_file};

/// The exchanges of one client with one VMM, in the order in which they happened.
///
/// The file is JSON with sorted keys. A value that fits on one line is written on one line:
///
/// ```json
/// {
///   "exchanges": [
///     {
///       "request": { "method": "PUT", "path": "/api/v1/vm.boot" },
///       "response": { "body": ["Error from API", "VM is not created"], "status": 404 }
///     }
///   ],
///   "format": 1,
///   "notes": "what was recorded and how",
///   "release": "v53.0"
/// }
/// ```
///
/// A request has at most one of `body` (JSON), `raw` (a body that is text but not JSON) and `length` (the size in bytes
/// of a body that the VMM did not read; its content is not kept). It has `descriptors`, the number of open files that
/// were sent with it, if there were any; the files themselves are not recorded. A response has `body` (JSON), `text`
/// (kept byte for byte), or neither. It has `headers` only if they differ from those that a VMM always sends.
/// `"closed": true` in place of `response` means that the VMM closed the connection without an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Cassette {
    /// The release of the VMM that answered.
    pub release: Release,
    /// Information for a reader about this recording.
    pub notes: Option<String>,
    /// The exchanges, in their order.
    pub exchanges: Vec<Exchange>,
}

/// One request and its outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WireExchange", into = "WireExchange")]
pub struct Exchange {
    /// The request.
    pub request: RecordedRequest,
    /// The outcome.
    pub answer: Answer,
}

/// A request in a cassette.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// The HTTP method as it was sent.
    pub method: String,
    /// The path as it was sent, with its query if there was one.
    pub path: String,
    /// The body.
    pub body: RequestBody,
    /// How many open files were sent with it (`SCM_RIGHTS`).
    pub descriptors: usize,
}

/// The body of a recorded request.
#[derive(Clone, Debug, PartialEq)]
pub enum RequestBody {
    /// No body, or an empty one.
    None,
    /// Valid JSON; compared by value, not by its text.
    Json(Value),
    /// Text that is not valid JSON; compared byte for byte.
    Text(String),
    /// A body of this many bytes that the VMM did not read: it exceeds the VMM's limit, or the VMM answered before it
    /// came. Its content is not kept.
    Length(u64),
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The VMM sent a response.
    Response(RecordedResponse),
    /// The VMM closed the connection without a response.
    Closed,
}

/// A response of the VMM.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RecordedResponse {
    /// The HTTP status.
    pub status: u16,
    /// The header lines (`Name: value`) except `Content-Length`. `None` if they are those that a VMM always sends. The
    /// known exception are answers to requests that aren't HTTP: their `Server` line differs.
    pub headers: Option<Vec<String>>,
    /// The body.
    pub body: ResponseBody,
}

/// The body of a recorded response.
#[derive(Clone, Debug, PartialEq)]
pub enum ResponseBody {
    /// No body, or an empty one.
    Empty,
    /// Valid JSON; sent in compact form with sorted keys.
    Json(Value),
    /// Text that is not valid JSON; sent byte for byte.
    Text(String),
}

/// Why a file or a text is not a cassette.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CassetteError {
    /// The text ends in the middle of a value.
    #[error("cut short: it ends at line {line}, column {column}, in the middle of a value")]
    Truncated {
        /// The line at which the text ends, from 1.
        line: usize,
        /// The column at which the text ends, from 1.
        column: usize,
    },
    /// The text is not JSON, or not in the form of a cassette. The source names the line and the column.
    #[error("not a cassette")]
    Malformed(#[source] serde_json::Error),
    /// The cassette was written by a later version of this crate.
    #[error("format {found}, but this version reads format {}", FORMAT)]
    Format {
        /// The format number in the cassette.
        found: u64,
    },
    /// The cassette is larger than [`Cassette::MAX_BYTES`].
    #[error(
        "larger than the {} bytes that a cassette may have",
        Cassette::MAX_BYTES
    )]
    TooLarge,
    /// The path is not that of a regular file.
    #[error("not a regular file")]
    NotAFile,
}

pub(super) const FORMAT: u64 = 1;

/// The statuses that a recorded answer may have: those of a final response.
pub(super) const STATUSES: std::ops::Range<u16> = 200..600;

impl Cassette {
    /// The maximum size of a cassette, in bytes: 16 MiB.
    pub const MAX_BYTES: u64 = 16 * 1024 * 1024;

    /// Reads a cassette from its file. This blocks while the file is read.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if the file can't be read, and [`Error::Cassette`] if it is not a cassette.
    pub fn read(path: impl AsRef<Path>) -> Result<Cassette, Error> {
        let path = path.as_ref();
        let invalid = |source| Error::Cassette {
            path: path.to_owned(),
            source,
        };
        let text = read_bounded(path, Self::MAX_BYTES, Symlinks::Follow);
        let text = text.map_err(|error| match error {
            ReadError::NotRegular => invalid(CassetteError::NotAFile),
            ReadError::TooLarge { .. } => invalid(CassetteError::TooLarge),
            ReadError::Failed { source, .. } => Error::Read {
                path: path.to_owned(),
                source,
            },
        })?;
        Self::from_slice(&text).map_err(invalid)
    }

    /// Parses the bytes of a cassette's file.
    ///
    /// # Errors
    ///
    /// Every variant of [`CassetteError`] except [`CassetteError::NotAFile`].
    pub fn from_slice(text: &[u8]) -> Result<Cassette, CassetteError> {
        if text.len() as u64 > Self::MAX_BYTES {
            return Err(CassetteError::TooLarge);
        }
        // The format number is checked first, so that a field of a later format is not reported as a mistake.
        let Format { format } = serde_json::from_slice(text).map_err(CassetteError::from_json)?;
        if format != FORMAT {
            return Err(CassetteError::Format { found: format });
        }
        let file: WireFile = serde_json::from_slice(text).map_err(CassetteError::from_json)?;
        Ok(Cassette {
            release: file.release,
            notes: file.notes,
            exchanges: file.exchanges,
        })
    }

    /// Writes the cassette to a file with mode 0600. The file gets its name only when it is complete. This blocks while
    /// the file is written.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if the file can't be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        replace_file(path, self.to_string().as_bytes(), 0o600).map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
    }
}

impl FromStr for Cassette {
    type Err = CassetteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_slice(text.as_bytes())
    }
}

/// Writes the text of the file, with a newline at its end.
impl std::fmt::Display for Cassette {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = WireFile {
            format: FORMAT,
            release: self.release,
            notes: self.notes.clone(),
            exchanges: self.exchanges.clone(),
        };
        let value = serde_json::to_value(&file).map_err(|_| std::fmt::Error)?;
        let mut text = String::new();
        json_text::write(&mut text, &value, 0, 0);
        writeln!(f, "{text}")
    }
}

impl CassetteError {
    fn from_json(error: serde_json::Error) -> Self {
        if error.is_eof() {
            CassetteError::Truncated {
                line: error.line(),
                column: error.column(),
            }
        } else {
            CassetteError::Malformed(error)
        }
    }
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{
  "exchanges": [
    {
      "request": { "body": null, "method": "PUT", "path": "/api/v1/vm.create" },
      "response": { "status": 400, "text": "{ \"error\": \"a
b\" }" }
    },
    { "closed": true, "request": { "method": "PUT", "path": "/api/v1/vm.boot" } }
  ],
  "format": 1,
  "release": "v53.0"
}
"#;

    #[test]
    fn a_cassette_reads_and_writes_the_same_text() {
        // The newline inside `text` is an escape in the file.
        let good = GOOD.replace("a\nb", "a\\nb");
        let cassette: Cassette = good.parse().unwrap();
        assert_eq!(
            cassette.exchanges[0].request.body,
            RequestBody::Json(Value::Null)
        );
        assert_eq!(cassette.exchanges[1].answer, Answer::Closed);
        assert_eq!(cassette.to_string(), good);
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let error = text.parse::<Cassette>().unwrap_err();
        let said = crate::causes::Causes(&error).to_string();
        assert!(said.contains(expected), "{said}");
    }

    #[test]
    fn a_text_that_is_not_a_cassette_is_refused() {
        let exchange =
            |text: &str| format!(r#"{{"format":1,"release":"v53.0","exchanges":[{text}]}}"#);
        let request = r#""request":{"method":"GET","path":"/"}"#;
        let cases = [
            ("".to_owned(), "cut short"),
            ("[]".to_owned(), "not a cassette"),
            (r#"{"format":2,"more":1}"#.to_owned(), "format 2"),
            (
                r#"{"format":1,"release":"v53.0","exchanges":[],"more":1}"#.to_owned(),
                "unknown field `more`",
            ),
            (
                r#"{"format":1,"release":"tip","exchanges":[]}"#.to_owned(),
                "\"tip\" is not a release",
            ),
            (
                exchange(r#"{"request":{"method":"GET"},"closed":true}"#),
                "missing field `path`",
            ),
            (exchange(&format!("{{{request}}}")), "neither"),
            (
                exchange(&format!(r#"{{{request},"closed":false}}"#)),
                "neither",
            ),
            (
                exchange(&format!(
                    r#"{{{request},"closed":true,"response":{{"status":204}}}}"#
                )),
                "both",
            ),
            (
                exchange(&format!(
                    r#"{{{request},"response":{{"status":204,"body":1,"text":"1"}}}}"#
                )),
                "at most one",
            ),
            (
                exchange(&format!(r#"{{{request},"response":{{"status":99}}}}"#)),
                "status 99",
            ),
        ];
        for (text, expected) in cases {
            check(&text, expected);
        }
    }

    #[test]
    fn a_cassette_cut_at_any_byte_is_refused_with_the_place() {
        let good = GOOD.replace("a\nb", "a\\nb");
        for end in 0..good.trim_end().len() {
            let error = good[..end].parse::<Cassette>().unwrap_err();
            assert!(
                matches!(error, CassetteError::Truncated { .. }),
                "{end}: {error:?}"
            );
        }
    }

    #[test]
    fn a_file_is_private_and_replaced_whole() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "old").unwrap();
        let cassette = Cassette {
            release: Release::new(53, 0),
            notes: Some("a note".to_owned()),
            exchanges: Vec::new(),
        };
        cassette.write(&path).unwrap();
        assert_eq!(Cassette::read(&path).unwrap(), cassette);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_path_that_is_not_a_regular_file_is_refused() {
        let error = Cassette::read("/dev/zero").unwrap_err();
        assert!(error.to_string().contains("/dev/zero"), "{error}");
        let error = Cassette::read("/nowhere/a.json").unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error}");
    }
}
