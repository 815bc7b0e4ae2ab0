//! The API of the VMM as data. [`Contract`] is the API of one release, read from an OpenAPI document, and
//! [`Corrections`] are the reviewed places where the server differs from its document.
//!
//! ```text
//! upstream YAML --read--> Contract --canonical--> api-spec/v53.0.json --read--> Contract
//!                                                                                  |
//!                                             api-spec/corrections.toml --apply--> Contract as the server has it
//! ```
//!
//! A [`Contract`] holds facts only: paths, methods, schemas, property names, types, formats, bounds, defaults and
//! statuses. The loader drops descriptions, summaries and operation identifiers. This module uses no other module of
//! the crate.

mod bounded_yaml;
mod canonical;
mod check;
mod contract;
mod correct;
mod error;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod load;
mod references;
mod release;
mod sources;
pub mod supported;
mod validate;

pub use bounded_yaml::MAX_DOCUMENT_BYTES;
pub use check::{CORRECTIONS, Fit, check, contracts};
pub use contract::{Body, Content, Contract, Endpoint, Method, Response, Schema, Shape};
pub use correct::{
    Applied, Change, Correction, CorrectionError, Corrections, Edit, ParseReleasesError,
    ParseTargetError, Problem as CorrectionProblem, Releases, Target,
};
pub use error::{Error, Invalid, Problem};
#[cfg(feature = "compat")]
pub(crate) use fields::escaped;
pub use load::{read, read_any, read_import};
pub use release::{ParseReleaseError, Release};
pub use sources::{Source, Sources, import};
pub use validate::{Mismatch, MismatchKind};
