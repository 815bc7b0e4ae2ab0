//! What changed between two contracts.

use super::Finding;
use crate::spec::Contract;

/// What changed from `base` to `revision`.
pub fn diff(_base: &Contract, _revision: &Contract) -> Vec<Finding> {
    Vec::new()
}
