//! Why a configuration can't be used.

use std::io;
use std::path::PathBuf;

use crate::sanitize;

/// The longest message about a malformed configuration, in characters.
const MAX_MESSAGE: usize = 1000;

/// A configuration can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read, or is too large.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It isn't TOML, or has a key or a kind of value that a configuration doesn't have.
    ///
    /// The line itself is not kept: it may hold a value of the VMM's environment.
    #[error("the configuration is wrong at line {line}, column {column}: {message}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// The character in that line, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// A value is not allowed, is missing, or contradicts another one.
    #[error("the configuration's {field} {reason}")]
    Invalid {
        /// The field as a TOML file has it, such as `golden.spares`.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl ConfigError {
    pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        ConfigError::Invalid { field, reason }
    }

    /// What the parser says of `text`, without any of it that it doesn't name.
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
