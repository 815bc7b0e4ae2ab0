//! What changed between two contracts of the API, what it breaks for whom, and whether it was seen or only read.
//!
//! Everything ends in one [`Report`]: a verdict, and one [`Finding`] for each place and direction.

mod diff;
mod document;
pub mod probe;
mod report;

pub use diff::diff;
pub use document::{Document, DocumentError};
pub use report::{Direction, Evidence, Finding, Level, Report, Verdict};
