//! What two manifests say differently.

use serde::Serialize;
use serde_json::Value;

use super::Manifest;

/// A field in which two manifests differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where, as `disks[1].sha256`.
    pub field: String,
    /// What the first says, if it says anything.
    pub first: Option<Value>,
    /// What the second says.
    pub second: Option<Value>,
    /// Whether two mints of one image always differ in this: the time, the nonce, and what a guest that has run has in
    /// its memory and registers.
    pub expected: bool,
}

/// Compares two manifests field by field, in the order in which a manifest has them.
pub fn compare(first: &Manifest, second: &Manifest) -> Vec<Difference> {
    let value =
        |manifest| serde_json::to_value(manifest).expect("a manifest has text for its keys");
    let mut differences = Vec::new();
    walk(
        String::new(),
        Some(&value(first)),
        Some(&value(second)),
        &mut differences,
    );
    differences
}

fn walk(
    field: String,
    first: Option<&Value>,
    second: Option<&Value>,
    differences: &mut Vec<Difference>,
) {
    match (first, second) {
        _ if first == second => {}
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let only_in_other = other.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(only_in_other) {
                let field = match field.is_empty() {
                    true => key.clone(),
                    false => format!("{field}.{key}"),
                };
                walk(field, one.get(key), other.get(key), differences);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for at in 0..one.len().max(other.len()) {
                let field = format!("{field}[{at}]");
                walk(field, one.get(at), other.get(at), differences);
            }
        }
        _ => differences.push(Difference {
            expected: is_expected(&field),
            field,
            first: first.cloned(),
            second: second.cloned(),
        }),
    }
}

fn is_expected(field: &str) -> bool {
    // The size of the memory is a matter of the VM's shape; that of the descriptions is not.
    let of_the_run = field.starts_with("snapshot.") && field != "snapshot.memory_ranges.length";
    of_the_run || ["minted_at", "guest.nonce"].contains(&field)
}
