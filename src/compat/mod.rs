//! Compares two contracts of the API, and a running server with a contract: which changes break a client.
//!
//! [`diff`] compares two contracts by the rules of [`rules::RULES`]. [`compare`] compares releases and documents that a
//! user names; a document that is compared with a release is corrected first. A document that can't be judged in full
//! is refused when it is read: [`spec`](crate::spec) refuses each keyword that it does not know, for instance `oneOf`,
//! and names its place.
//!
//! Every comparison gives a [`Report`]: a verdict, and one [`Finding`] for each place and direction.
//!
//! # Features of each release
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
