//! What changed between two contracts of the API, what it breaks for whom, and whether it was seen or only read.
//!
//! [`diff`] compares two documents by the rules of [`rules::RULES`]. A document that it cannot judge is not read in the
//! first place: [`spec`](crate::spec) refuses what it does not understand, for instance `oneOf`, and says where.
//!
//! Everything ends in one [`Report`]: a verdict, and one [`Finding`] for each place and direction.

mod diff;
mod report;
pub mod rules;

pub use diff::diff;
pub use report::{Direction, Evidence, Finding, Level, Report, Verdict};
