//! What changed between two contracts of the API, what it breaks for whom, and whether it was seen or only read.
//!
//! [`diff`] compares two documents by the rules of [`rules::RULES`]. A document that it cannot judge is not read in the
//! first place: [`spec`](crate::spec) refuses what it does not understand, for instance `oneOf`, and says where.
//!
//! Everything ends in one [`Report`]: a verdict, and one [`Finding`] for each place and direction.
//!
//! # Which release has what
//!
#![doc = include_str!("matrix.md")]

mod check;
mod diff;
mod document;
mod matrix;
pub mod probe;
pub mod render;
mod report;
pub mod rules;

pub use check::{Check, check};
pub use diff::diff;
pub use document::{Document, DocumentError};
pub use matrix::{Cell, Matrix, Row};
pub use report::{Direction, Evidence, Finding, Level, Report, Verdict};
