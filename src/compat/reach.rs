//! [`Reach`] finds the operations whose bodies contain a place of a contract.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::{Contract, Schema, Shape};

/// For each named schema, the operations whose bodies may contain it.
pub(super) struct Reach {
    asked: BTreeMap<String, BTreeSet<String>>,
    answered: BTreeMap<String, BTreeSet<String>>,
}

impl Reach {
    pub(super) fn of(contract: &Contract) -> Reach {
        let mut reach = Reach {
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
        };
        for (path, methods) in &contract.paths {
            let operation = path.trim_start_matches('/');
            for endpoint in methods.values() {
                let asked = endpoint.body.iter().map(|body| &body.content);
                let asked = asked.flat_map(|content| content.values());
                for name in named(contract, asked) {
                    let operations = reach.asked.entry(name.to_owned()).or_default();
                    operations.insert(operation.to_owned());
                }
                let answered = endpoint.all_responses().into_values();
                let answered = answered.flat_map(|response| response.content.values());
                for name in named(contract, answered) {
                    let operations = reach.answered.entry(name.to_owned()).or_default();
                    operations.insert(operation.to_owned());
                }
            }
        }
        reach
    }

    /// Returns the operations that send the place at this JSON pointer, and those that receive it. A place in an
    /// operation itself counts as received, because the corrections of such places change statuses.
    pub(super) fn operations(&self, pointer: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        if let Some(path) = pointer.strip_prefix("/paths/~1") {
            let operation = path.split('/').next().unwrap_or(path);
            return (BTreeSet::new(), [operation.to_owned()].into());
        }
        let schema = pointer
            .strip_prefix("/components/schemas/")
            .and_then(|rest| rest.split('/').next())
            .unwrap_or_default();
        let of = |map: &BTreeMap<String, BTreeSet<String>>| map.get(schema).cloned();
        (
            of(&self.asked).unwrap_or_default(),
            of(&self.answered).unwrap_or_default(),
        )
    }
}

/// Returns the names of all schemas that `schemas` refer to, directly or not.
fn named<'c>(
    contract: &'c Contract,
    schemas: impl Iterator<Item = &'c Schema>,
) -> BTreeSet<&'c str> {
    let mut names = BTreeSet::new();
    let mut waiting: Vec<&Schema> = schemas.collect();
    while let Some(schema) = waiting.pop() {
        match &schema.shape {
            Shape::Reference(name) => {
                if names.insert(name.as_str()) {
                    waiting.extend(contract.schemas.get(name));
                }
            }
            Shape::Array(inner) | Shape::Map(inner) => waiting.push(inner),
            Shape::Object { properties, .. } => waiting.extend(properties.values()),
            Shape::Any
            | Shape::Boolean
            | Shape::Integer { .. }
            | Shape::Number { .. }
            | Shape::String { .. } => {}
        }
    }
    names
}
