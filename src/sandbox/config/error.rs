//! [`ConfigError`]: why a configuration is refused.

use std::io;
use std::path::PathBuf;

use crate::sanitize;

/// The longest message of [`ConfigError::Malformed`], in characters.
const MAX_MESSAGE: usize = 1000;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read, or is larger than 64 KiB.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the read.
        source: io::Error,
    },
    /// The text isn't TOML, or has an unknown field, a field twice, or a value of the wrong type.
    ///
    /// The text of the line is not kept, since it may hold a secret value of the VMM's environment.
    #[error("the configuration is wrong at line {line}, column {column}: {message}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// The character in that line, from 1.
        column: usize,
        /// The parser's message, on one line, of at most 1000 characters.
        message: String,
    },
    /// A value is not allowed, is missing, or contradicts another one.
    #[error("the configuration's {field} {reason}")]
    Invalid {
        /// The field's name in a TOML file, such as `golden.spares`.
        field: &'static str,
        /// The rest of a sentence that begins with the field, such as `is 65, more than 64`.
        reason: String,
    },
}

impl ConfigError {
    pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        ConfigError::Invalid { field, reason }
    }

    /// The parser's error about `text`: its place and its message, without the line itself.
    pub(super) fn malformed(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConfigError::Malformed {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: sanitize::line(error.message(), MAX_MESSAGE),
        }
    }
}
