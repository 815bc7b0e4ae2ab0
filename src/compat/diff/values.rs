//! Which values are allowed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::rename;
use crate::compat::rules::{Action, Area};
use crate::spec::{Schema, Shape};

/// Compares the lists of allowed values, and reports each value that came or went, or the list if it is new or gone.
pub(super) fn compare(
    old: &Schema,
    new: &Schema,
    was: &str,
    name: &str,
    find: &mut impl FnMut((Area, Action), String),
) {
    match (values(old), values(new)) {
        (None, None) => {}
        (None, Some(values)) => find(
            (Area::Enum, Action::Added),
            format!("`{name}` takes these values only now: {}", list(&values)),
        ),
        (Some(values), None) => find(
            (Area::Enum, Action::Removed),
            format!(
                "`{was}` is no longer limited to these values: {}",
                list(&values)
            ),
        ),
        (Some(old), Some(new)) => {
            let gone: Vec<&str> = old.difference(&new).map(String::as_str).collect();
            let come: Vec<&str> = new.difference(&old).map(String::as_str).collect();
            let renamed = rename::by_name(&gone, &come);
            for value in &gone {
                let message = format!("`{was}` has no value `{value:.60}` any more");
                let change = (Area::EnumValue, Action::Removed);
                find(change, rename::to(message, value, &renamed));
            }
            for value in &come {
                let message = format!("`{name}` has a new value: `{value:.60}`");
                let message = rename::from(message, value, &renamed);
                find((Area::EnumValue, Action::Added), message);
            }
        }
    }
}

/// The allowed values as a document writes them, if they are listed.
fn values(schema: &Schema) -> Option<BTreeSet<String>> {
    match (&schema.shape, schema.constraints.get("enum")) {
        (Shape::String { values, .. }, _) if !values.is_empty() => Some(values.clone()),
        (_, Some(Value::Array(values))) => Some(values.iter().map(Value::to_string).collect()),
        _ => None,
    }
}

fn list(values: &BTreeSet<String>) -> String {
    const SHOWN: usize = 12;
    let mut shown: Vec<String> = values
        .iter()
        .take(SHOWN)
        .map(|value| format!("`{value:.60}`"))
        .collect();
    if values.len() > SHOWN {
        shown.push(format!("and {} more", values.len() - SHOWN));
    }
    shown.join(", ")
}

/// Enough of a value to recognise it by.
pub(super) fn short(value: &Value) -> String {
    format!("`{:.60}`", value.to_string())
}
