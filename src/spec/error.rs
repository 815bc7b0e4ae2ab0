//! What can be wrong with a document.

use std::io;
use std::path::PathBuf;

/// A document could not be read as a contract.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read or written.
    #[error("cannot {verb} {}", path.display())]
    File {
        /// What was tried: `read`, `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is larger than any contract; it was not parsed.
    #[error("{} is larger than {limit} bytes, which no API document is", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file is not YAML or JSON, repeats a key, or asks for more work (depth, nodes, aliases) than a contract may.
    #[error("{} is not a document that can be read", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser met, with its line and column.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file is well formed, and is not an OpenAPI document that this crate understands in full.
    #[error("{} is not an OpenAPI document that is understood in full", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was not understood, and where.
        source: Invalid,
    },
    /// `sources.toml` is not what `spec import` writes.
    #[error("{} is not a list of sources", path.display())]
    Sources {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        source: Box<toml::de::Error>,
    },
}

/// What is wrong in a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {}: {problem}", if pointer.is_empty() { "the root" } else { pointer })]
pub struct Invalid {
    /// The JSON pointer of the place; empty for the document itself.
    pub pointer: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong at one place of a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A keyword that the loader does not know. To go on without it could lose a fact.
    #[error("keyword `{0}` is not known here")]
    UnknownKeyword(String),
    /// A keyword is missing.
    #[error("keyword `{0}` is missing")]
    MissingKeyword(&'static str),
    /// A value is of another kind.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A `$ref` that leads nowhere, or outside `#/components/schemas/`.
    #[error("the reference `{0}` leads to no schema of this document")]
    DanglingReference(String),
    /// Schemas that are references to each other and to nothing else.
    #[error("the references {} lead round in a circle", .0.join(" -> "))]
    ReferenceCycle(Vec<String>),
    /// Keywords that exclude each other.
    #[error("keyword `{0}` does not go with `{1}`")]
    Conflict(&'static str, &'static str),
}
