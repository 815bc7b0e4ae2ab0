//! Finds the places of a contract by their JSON pointers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::spec::{Contract, Endpoint, Method, Schema, Shape, escaped};

/// Returns the schemas of the bodies that a client sends with `operation`.
pub(super) fn asked<'c>(contract: &'c Contract, operation: &str) -> Vec<(String, &'c Schema)> {
    let mut places = Vec::new();
    for (pointer, endpoint) in endpoints(contract, operation) {
        for (media_type, schema) in endpoint.body.iter().flat_map(|body| &body.content) {
            let media_type = escaped(media_type);
            places.push((
                format!("{pointer}/requestBody/content/{media_type}/schema"),
                schema,
            ));
        }
    }
    places
}

/// Returns the schemas of the bodies of responses to `operation` with this status.
pub(super) fn answered<'c>(
    contract: &'c Contract,
    operation: &str,
    status: u16,
) -> Vec<(String, &'c Schema)> {
    let mut places = Vec::new();
    for (pointer, endpoint) in endpoints(contract, operation) {
        let response = endpoint.responses.get(&status).into_iter();
        for (media_type, schema) in response.flat_map(|response| &response.content) {
            let media_type = escaped(media_type);
            places.push((
                format!("{pointer}/responses/{status}/content/{media_type}/schema"),
                schema,
            ));
        }
    }
    places
}

fn endpoints<'c>(
    contract: &'c Contract,
    operation: &str,
) -> impl Iterator<Item = (String, &'c Endpoint)> {
    let path = format!("/{operation}");
    let methods = contract.paths.get(&path).into_iter().flatten();
    methods.map(move |(method, endpoint): (&Method, _)| {
        let pointer = format!("/paths/{}/{}", escaped(&path), method.key());
        (pointer, endpoint)
    })
}

/// Collects the places that `value` fills, and the texts at each of them. `schema` is the schema of the value and has
/// the JSON pointer `pointer`.
pub(super) fn fill(
    contract: &Contract,
    pointer: String,
    schema: &Schema,
    value: &Value,
    filled: &mut BTreeMap<String, BTreeSet<String>>,
) {
    match (&schema.shape, value) {
        (Shape::Reference(name), _) => {
            if let Some(schema) = contract.schemas.get(name) {
                let named = format!("/components/schemas/{}", escaped(name));
                fill(contract, named, schema, value, filled);
            }
        }
        (Shape::Object { properties, .. }, Value::Object(fields)) => {
            for (name, value) in fields {
                if let Some(schema) = properties.get(name) {
                    let pointer = format!("{pointer}/properties/{}", escaped(name));
                    fill(contract, pointer, schema, value, filled);
                }
            }
        }
        (Shape::Array(items), Value::Array(values)) => {
            for value in values {
                fill(contract, format!("{pointer}/items"), items, value, filled);
            }
        }
        (Shape::Map(schema), Value::Object(values)) => {
            for value in values.values() {
                let pointer = format!("{pointer}/additionalProperties");
                fill(contract, pointer, schema, value, filled);
            }
        }
        _ => {}
    }
    let texts = filled.entry(pointer).or_default();
    texts.extend(value.as_str().map(str::to_owned));
}

/// Returns the innermost property that contains `path`: the pointer of its object, and its name as escaped in the
/// pointer.
pub(super) fn property(path: &str) -> Option<(&str, &str)> {
    let (holder, rest) = path.rsplit_once("/properties/")?;
    Some((holder, rest.split('/').next()?))
}

/// Returns `path` and the places that contain it, the innermost first.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |at| at.rsplit_once('/').map(|(up, _)| up))
}

/// Whether the object at `holder` has the property.
pub(super) fn has(contract: &Contract, holder: &str, property: &str) -> bool {
    matches!(
        schema(contract, holder).map(|schema| &schema.shape),
        Some(Shape::Object { properties, .. }) if properties.contains_key(&plain(property))
    )
}

/// Whether the object at `holder` requires the property.
pub(super) fn requires(contract: &Contract, holder: &str, property: &str) -> bool {
    matches!(
        schema(contract, holder).map(|schema| &schema.shape),
        Some(Shape::Object { required, .. }) if required.contains(&plain(property))
    )
}

/// Returns the values that the string at `pointer` may have.
pub(super) fn values<'c>(contract: &'c Contract, pointer: &str) -> Option<&'c BTreeSet<String>> {
    match &schema(contract, pointer)?.shape {
        Shape::String { values, .. } => Some(values),
        _ => None,
    }
}

/// Returns the schema at `pointer`, which is a named schema or a part of one.
fn schema<'c>(contract: &'c Contract, pointer: &str) -> Option<&'c Schema> {
    let mut steps = pointer.strip_prefix("/components/schemas/")?.split('/');
    let mut at = contract.schemas.get(&plain(steps.next()?))?;
    while let Some(step) = steps.next() {
        at = match (step, &at.shape) {
            ("properties", Shape::Object { properties, .. }) => {
                properties.get(&plain(steps.next()?))?
            }
            ("items", Shape::Array(items)) => items,
            ("additionalProperties", Shape::Map(values)) => values,
            _ => return None,
        };
    }
    Some(at)
}

fn plain(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use crate::spec::supported;

    use super::*;

    #[test]
    fn a_pointer_leads_to_its_place() {
        let contract = supported::contract(supported::newest()).unwrap();
        let check = |holder: &str, name: &str, expected: (bool, bool)| {
            let found = (
                has(&contract, holder, name),
                requires(&contract, holder, name),
            );
            assert_eq!(found, expected, "{holder} {name}");
        };
        let schemas = "/components/schemas";
        check(&format!("{schemas}/VsockConfig"), "cid", (true, true));
        check(&format!("{schemas}/VsockConfig"), "iommu", (true, false));
        check(&format!("{schemas}/VsockConfig"), "colour", (false, false));
        check(&format!("{schemas}/Nothing"), "cid", (false, false));
        check("", "cid", (false, false));
        assert_eq!(
            property("/components/schemas/A/properties/b/items/properties/c~1d/format"),
            Some(("/components/schemas/A/properties/b/items", "c~1d"))
        );
        assert_eq!(property("/components/schemas/A"), None);
        let modes = values(&contract, &format!("{schemas}/MemoryRestoreMode")).unwrap();
        assert!(modes.contains("OnDemand"));
    }

    #[test]
    fn a_value_fills_the_places_of_its_schema() {
        let contract = supported::contract(supported::newest()).unwrap();
        let body = serde_json::json!({
            "disks": [{ "image_type": "Raw" }, { "image_type": "Qcow2", "colour": 1 }],
        });
        let mut filled = BTreeMap::new();
        for (pointer, schema) in asked(&contract, "vm.create") {
            fill(&contract, pointer, schema, &body, &mut filled);
        }
        let texts: Vec<&str> = filled["/components/schemas/ImageType"]
            .iter()
            .map(String::as_str)
            .collect();
        assert_eq!(texts, ["Qcow2", "Raw"]);
        let places: Vec<&str> = filled.keys().map(String::as_str).collect();
        assert_eq!(
            places,
            [
                "/components/schemas/DiskConfig",
                "/components/schemas/DiskConfig/properties/image_type",
                "/components/schemas/ImageType",
                "/components/schemas/VmConfig",
                "/components/schemas/VmConfig/properties/disks",
                "/components/schemas/VmConfig/properties/disks/items",
                "/paths/~1vm.create/put/requestBody/content/application~1json/schema",
            ]
        );
    }
}
