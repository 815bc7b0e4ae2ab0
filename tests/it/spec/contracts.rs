//! The corrected contracts of all supported releases, and values made from them.

use std::path::Path;
use std::sync::LazyLock;

use chv_sandbox::client::Release;
use chv_sandbox::spec::{self, Contract, Corrections, Schema, Shape};
use serde_json::{Map, Value, json};

/// Every contract after its corrections, oldest release first.
pub(crate) fn corrected() -> &'static [Contract] {
    static CONTRACTS: LazyLock<Vec<Contract>> = LazyLock::new(read);
    &CONTRACTS
}

fn read() -> Vec<Contract> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("api-spec");
    let corrections = Corrections::read(&folder.join(spec::CORRECTIONS)).unwrap();
    let mut contracts: Vec<Contract> = spec::contracts(&folder).unwrap().into_values().collect();
    for contract in &mut contracts {
        corrections.apply(contract).unwrap();
    }
    contracts
}

/// A contract's release, as the client represents it.
pub(crate) fn release(contract: &Contract) -> Release {
    let release = contract.release;
    Release::new(release.major.into(), release.minor.into())
}

/// The body of an operation.
pub(crate) fn body<'c>(contract: &'c Contract, operation: &str) -> Option<&'c Schema> {
    let methods = contract.paths.get(&format!("/{operation}"))?;
    let body = methods.values().next()?.body.as_ref()?;
    body.content.get("application/json")
}

/// The schema that `schema` stands for.
pub(crate) fn resolved<'c>(contract: &'c Contract, schema: &'c Schema) -> &'c Schema {
    match &schema.shape {
        Shape::Reference(name) => resolved(contract, &contract.schemas[name]),
        _ => schema,
    }
}

/// A value of `schema`: with every required property, and with those of the others that `wanted` accepts by name. Where
/// possible it differs from the default.
pub(crate) fn value(
    contract: &Contract,
    name: &str,
    schema: &Schema,
    wanted: &mut dyn FnMut(&str) -> bool,
) -> Value {
    let schema = resolved(contract, schema);
    let default = schema.default.as_ref();
    match &schema.shape {
        Shape::Any => json!({}),
        Shape::Boolean => json!(default != Some(&json!(true))),
        Shape::Integer { minimum, .. } | Shape::Number { minimum, .. } => {
            let least = minimum.as_ref().and_then(|least| least.as_u64());
            json!(least.unwrap_or(0) + 5)
        }
        Shape::String { values, .. } if values.is_empty() => json!(text(name)),
        // A console that is on opens its file or socket when a VM is created.
        Shape::String { values, .. } if values.contains("Off") => json!("Off"),
        Shape::String { values, .. } => {
            let other = values.iter().find(|value| default != Some(&json!(value)));
            json!(other.or(values.first()))
        }
        Shape::Array(items) => json!([value(contract, name, items, wanted)]),
        Shape::Map(values) => json!({ "key": value(contract, name, values, wanted) }),
        Shape::Object {
            properties,
            required,
        } => {
            let mut object = Map::new();
            for (name, schema) in properties {
                if required.contains(name) || wanted(name) {
                    let value = value(contract, name, schema, wanted);
                    object.insert(name.clone(), value);
                }
            }
            Value::Object(object)
        }
        Shape::Reference(_) => unreachable!("it was resolved"),
    }
}

/// A text that the server accepts for a property of this name.
fn text(name: &str) -> &'static str {
    match name {
        "mac" | "host_mac" => "12:34:56:78:9a:bc",
        "ip" => "192.168.7.2",
        "mask" => "255.255.0.0",
        "access" => "rw",
        _ => "/some/text",
    }
}
