//! [`Error`] and [`Invalid`]: why a file is not a contract, and at which place of the document.

use std::io;
use std::path::PathBuf;

/// Why a file can't be read as a contract, or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file can't be read, written or created.
    #[error("cannot {verb} {}", path.display())]
    File {
        /// The failed action: `read`, `write` or `create`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The file is larger than the limit for a document. It was not parsed.
    #[error("{} is larger than {limit} bytes, the limit for an API document", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file is not YAML or JSON, has a key twice, or exceeds the parser's limits on depth, nodes and aliases.
    #[error("{} cannot be parsed as an API document in YAML or JSON", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's error, with line and column.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file is YAML or JSON, but not an OpenAPI document of which every keyword is supported.
    #[error("{} is not an OpenAPI document that is supported in full", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The first unsupported item, and its place.
        source: Invalid,
    },
    /// `sources.toml` does not have the form that `spec import` writes.
    #[error("{} is not a list of sources", path.display())]
    Sources {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: Box<toml::de::Error>,
    },
}

/// A problem in a document, with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {}: {problem}", if pointer.is_empty() { "the root" } else { pointer })]
pub struct Invalid {
    /// The JSON pointer of the place. Empty for the document itself.
    pub pointer: String,
    /// The problem at that place.
    pub problem: Problem,
}

/// A problem at one place of a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The loader does not know the keyword. It does not ignore the keyword, because a fact could be lost.
    #[error("keyword `{0}` is not known here")]
    UnknownKeyword(String),
    /// A required keyword is missing.
    #[error("keyword `{0}` is missing")]
    MissingKeyword(&'static str),
    /// The value has another type, or is not one of those that are allowed.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// The expected value.
        expected: &'static str,
        /// The value in the document, shortened.
        found: String,
    },
    /// A `$ref` leads to no schema, or outside `#/components/schemas/`.
    #[error("the reference `{0}` leads to no schema of this document")]
    DanglingReference(String),
    /// The named schemas refer only to each other, so none of them has a type.
    #[error("the references {} form a cycle", .0.join(" -> "))]
    ReferenceCycle(Vec<String>),
    /// Two keywords exclude each other.
    #[error("keyword `{0}` cannot be combined with `{1}`")]
    Conflict(&'static str, &'static str),
}
