//! [`Findings`] collects the findings of a probe: one for each rule and place.

use std::collections::BTreeMap;

use super::rules::Rule;
use crate::compat::{Evidence, Finding};

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings(BTreeMap<(&'static str, String), Finding>);

impl Findings {
    /// Adds a finding. If the rule has a finding at this place already, that one keeps its message and also gets the
    /// operation.
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
