//! Findings as they come up: one for each rule and place.

use std::collections::BTreeMap;

use super::rules::Rule;
use crate::compat::{Evidence, Finding};

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Findings(BTreeMap<(&'static str, String), Finding>);

impl Findings {
    /// Adds a finding. Of several by one rule at one place, the first message stays, and all operations are named.
    pub(super) fn add(
        &mut self,
        rule: Rule,
        path: impl Into<String>,
        operation: &str,
        message: String,
    ) {
        let path = path.into();
        let finding = self
            .0
            .entry((rule.id, path.clone()))
            .or_insert_with(|| Finding {
                id: rule.id,
                level: rule.level,
                direction: rule.direction,
                path,
                message,
                evidence: Evidence::Observed,
                affects: Default::default(),
            });
        if !operation.is_empty() {
            finding.affects.insert(operation.to_owned());
        }
    }

    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.0.into_values().collect()
    }
}
