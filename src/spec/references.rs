//! Every reference leads to a schema, and not round in a circle.

use super::{Contract, Invalid, Problem, Schema, Shape};

/// Checks every reference of `contract`.
pub(super) fn check(contract: &Contract) -> Result<(), Invalid> {
    for (path, methods) in &contract.paths {
        for (method, endpoint) in methods {
            let pointer = format!(
                "/paths/{}/{}",
                path.replace('~', "~0").replace('/', "~1"),
                method.key()
            );
            let bodies = endpoint.body.iter().map(|body| &body.content);
            let answers = endpoint
                .responses
                .values()
                .map(|response| &response.content);
            for schema in bodies.chain(answers).flat_map(|content| content.values()) {
                resolve(contract, schema, &pointer)?;
            }
        }
    }
    for (name, schema) in &contract.schemas {
        let pointer = format!("/components/schemas/{name}");
        resolve(contract, schema, &pointer)?;
        progress(contract, name, &pointer)?;
    }
    Ok(())
}

/// Every name inside `schema` is known.
fn resolve(contract: &Contract, schema: &Schema, pointer: &str) -> Result<(), Invalid> {
    match &schema.shape {
        Shape::Reference(name) if !contract.schemas.contains_key(name) => Err(Invalid {
            pointer: pointer.to_owned(),
            problem: Problem::DanglingReference(format!("#/components/schemas/{name}")),
        }),
        Shape::Array(items) => resolve(contract, items, &format!("{pointer}/items")),
        Shape::Map(values) => resolve(contract, values, &format!("{pointer}/additionalProperties")),
        Shape::Object { properties, .. } => properties.iter().try_for_each(|(name, schema)| {
            resolve(contract, schema, &format!("{pointer}/properties/{name}"))
        }),
        _ => Ok(()),
    }
}

/// Following references from `name` ends at something that is not a reference.
fn progress(contract: &Contract, name: &str, pointer: &str) -> Result<(), Invalid> {
    let mut seen = vec![name.to_owned()];
    let mut at = name;
    while let Some(Shape::Reference(next)) = contract.schemas.get(at).map(|schema| &schema.shape) {
        let circle = seen.contains(next);
        seen.push(next.clone());
        if circle {
            return Err(Invalid {
                pointer: pointer.to_owned(),
                problem: Problem::ReferenceCycle(seen),
            });
        }
        at = next;
    }
    Ok(())
}
