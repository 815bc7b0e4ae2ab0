//! What changed between two contracts of the API, what it breaks for whom, and whether it was seen or only read.
//!
//! [`diff`] compares two contracts by the rules of [`rules::RULES`], and [`compare`] what a person names: a document
//! beside a release is corrected first. A document that can't be judged is not read in the first place:
//! [`spec`](crate::spec) refuses what it does not understand, for instance `oneOf`, and says where.
//!
//! Everything ends in one [`Report`]: a verdict, and one [`Finding`] for each place and direction.
//!
//! # Which release has what
//!
#![doc = include_str!("matrix.md")]

mod check;
mod compare;
mod corrected;
mod diff;
mod document;
mod matrix;
pub mod probe;
mod reach;
pub mod render;
mod report;
pub mod rules;

pub use check::{Check, check};
pub use compare::compare;
pub use diff::diff;
pub use document::{Document, DocumentError};
pub use matrix::{Cell, Matrix, Row};
pub use report::{Direction, Evidence, Finding, Level, Report, Verdict};
