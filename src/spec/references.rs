//! Checks that every reference of a contract leads to a schema, and that no references form a cycle.

use std::collections::BTreeSet;

use super::fields::escaped;
use super::{Contract, Invalid, Problem, Schema, Shape};

/// Checks every reference of `contract`.
pub(super) fn check(contract: &Contract) -> Result<(), Invalid> {
    for (path, methods) in &contract.paths {
        for (method, endpoint) in methods {
            let pointer = format!("/paths/{}/{}", escaped(path), method.key());
            let bodies = endpoint.body.iter().map(|body| &body.content);
            let answers = endpoint.responses.values();
            let answers = answers.chain(endpoint.fallbacks.values());
            let answers = answers.map(|response| &response.content);
            for schema in bodies.chain(answers).flat_map(|content| content.values()) {
                check_names(contract, schema, &pointer)?;
            }
        }
    }
    for (name, schema) in &contract.schemas {
        let pointer = format!("/components/schemas/{}", escaped(name));
        check_names(contract, schema, &pointer)?;
    }
    check_cycles(contract)
}

/// Checks that the contract has every schema that `schema` refers to.
fn check_names(contract: &Contract, schema: &Schema, pointer: &str) -> Result<(), Invalid> {
    match &schema.shape {
        Shape::Reference(name) if !contract.schemas.contains_key(name) => Err(Invalid {
            pointer: pointer.to_owned(),
            problem: Problem::DanglingReference(format!("#/components/schemas/{name}")),
        }),
        Shape::Array(items) => check_names(contract, items, &format!("{pointer}/items")),
        Shape::Map(values) => {
            check_names(contract, values, &format!("{pointer}/additionalProperties"))
        }
        Shape::Object { properties, .. } => properties.iter().try_for_each(|(name, schema)| {
            let pointer = format!("{pointer}/properties/{}", escaped(name));
            check_names(contract, schema, &pointer)
        }),
        _ => Ok(()),
    }
}

/// Checks that a chain of references ends, starting from each named schema. Each name is followed once.
fn check_cycles(contract: &Contract) -> Result<(), Invalid> {
    let mut ended = BTreeSet::new();
    for name in contract.schemas.keys() {
        let mut chain = Vec::new();
        let mut in_chain = BTreeSet::new();
        let mut at = name;
        while !ended.contains(at) {
            chain.push(at.clone());
            if !in_chain.insert(at) {
                return Err(Invalid {
                    pointer: format!("/components/schemas/{}", escaped(name)),
                    problem: Problem::ReferenceCycle(chain),
                });
            }
            match contract.schemas.get(at).map(|schema| &schema.shape) {
                Some(Shape::Reference(next)) => at = next,
                _ => break,
            }
        }
        ended.extend(in_chain);
    }
    Ok(())
}
