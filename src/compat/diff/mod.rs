//! The comparison of two contracts.
//!
//! ```text
//! operations --> bodies of one endpoint --+
//!                                         v
//!                      pairs of schemas: (base, revision, direction), each compared once
//!                         |                     |
//!                         v                     v
//!                   what differs there    the pairs that it leads to
//!                                                |
//!              operations that reach a pair <----+
//! ```
//!
//! Paths are matched by the addresses that requests go to ([`routes`]), responses by the statuses that they stand for
//! ([`statuses`]), and bodies by what their media types stand for ([`media`]).
//!
//! Two schemas are compared by what they hold, whatever they are called and wherever they stand: so a new name, or the
//! same schema written inline, is no difference. A pair of named schemas is compared once for each direction, so a
//! schema that refers to itself comes to an end, and every operation that reaches the pair is listed in its findings.
//!
//! Of two schemas each fact is judged by the values of the types that both allow. The values of all other types are what
//! the change of the type is about, so a type that changed hides no other fact, and no other finding repeats it. Numbers
//! are exact fractions: it does not matter how they are written. The reader of documents keeps 64 bits of a whole number
//! and a `f64` of any other, so digits beyond those are not seen.

mod bounds;
mod constraints;
mod enumeration;
mod exact;
mod facts;
mod media;
mod object;
mod operations;
mod pairs;
mod place;
mod rename;
mod routes;
mod same;
mod schema;
mod sides;
mod statuses;
mod types;
mod values;

use super::Finding;
use crate::spec::Contract;

/// What changed from `base` to `revision`, and what it means to a client that was built for `base`.
///
/// One finding for each fact, place and direction, in no particular order; a [`Report`](super::Report) sorts them. The
/// releases that the contracts are of are not looked at; of a server's address only the path is.
pub fn diff(base: &Contract, revision: &Contract) -> Vec<Finding> {
    let mut comparison = pairs::Comparison::new(base, revision);
    operations::compare(&mut comparison);
    comparison.findings()
}
