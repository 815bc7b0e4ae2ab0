//! [`compare_manifests`] lists the fields in which two manifests differ.

use serde::Serialize;
use serde_json::Value;

use super::Manifest;

/// A field in which two manifests differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ManifestDifference {
    /// The field's path in the manifest, such as `disks[1].sha256`.
    pub field: String,
    /// The field's value in the first manifest; `None` if that manifest lacks the field.
    pub first: Option<Value>,
    /// The field's value in the second manifest; `None` if that manifest lacks the field.
    pub second: Option<Value>,
    /// Whether any two mints of the same image differ in this field. These are the time, the nonce, and the digests of
    /// the snapshot's files, which hold the memory and the registers of a guest that has run.
    pub expected: bool,
}

/// Compares two manifests field by field, and returns the differences in the order of a manifest's fields.
pub fn compare_manifests(first: &Manifest, second: &Manifest) -> Vec<ManifestDifference> {
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
    differences: &mut Vec<ManifestDifference>,
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
        _ => differences.push(ManifestDifference {
            expected: is_expected(&field),
            field,
            first: first.cloned(),
            second: second.cloned(),
        }),
    }
}

fn is_expected(field: &str) -> bool {
    // The length of `memory-ranges` depends on the VM's shape only. The lengths of `config.json` and `state.json` vary
    // from mint to mint.
    let of_the_run = field.starts_with("snapshot.") && field != "snapshot.memory_ranges.length";
    of_the_run || ["minted_at", "guest.nonce"].contains(&field)
}
