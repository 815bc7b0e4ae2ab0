//! [`diff`] compares two contracts.
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
//! Paths are matched by the addresses that requests go to ([`routes`]), responses by the statuses that they include
//! ([`statuses`]), and bodies by their media types ([`media`]).
//!
//! Two schemas are compared by their content, whatever their names and places are. So a new name, or the same schema
//! written inline, is no difference. A pair of named schemas is compared once for each direction. So the comparison of
//! a schema that refers to itself ends, and a finding lists every operation that reaches the pair.
//!
//! Each fact of two schemas is judged by the values of the types that both allow. The values of all other types belong
//! to the change of the type. So a changed type hides no other fact, and no other finding repeats it. Numbers are
//! compared as exact fractions, so their notation does not matter. The reader of documents keeps 64 bits of a whole
//! number and an `f64` of any other number, so further digits are not compared.

mod bounds;
mod constraints;
mod enumeration;
mod facts;
mod fraction;
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

/// Returns the changes from `base` to `revision`, and their effect on a client that was built for `base`.
///
/// There is one finding for each fact, place and direction, in no particular order; a [`Report`](super::Report) sorts
/// them. The releases that the contracts name are not compared. Of a server's address only the path is compared.
pub fn diff(base: &Contract, revision: &Contract) -> Vec<Finding> {
    let mut comparison = pairs::Comparison::new(base, revision);
    operations::compare(&mut comparison);
    comparison.findings()
}
