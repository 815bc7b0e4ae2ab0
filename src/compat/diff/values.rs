//! Which values are allowed, and whether two values are the same.

use std::collections::BTreeMap;

use serde_json::Value;

use super::exact::exact;
use super::rename;
use super::sides::Sides;
use crate::compat::rules::{Action, Area};
use crate::spec::{Schema, Shape};

/// The values that a schema lists, each under its canonical text.
pub(super) type Listed = BTreeMap<String, Value>;

/// The values that `schema` lists, if it does. `null` is not among them: whether it is allowed is a fact of its own.
pub(super) fn listed(schema: &Schema) -> Option<Listed> {
    let values: Vec<Value> = match (&schema.shape, schema.constraints.get("enum")) {
        (Shape::String { values, .. }, _) if !values.is_empty() => {
            values.iter().map(|text| text.as_str().into()).collect()
        }
        (_, Some(Value::Array(values))) => values.clone(),
        _ => return None,
    };
    let values = values.into_iter().filter(|value| !value.is_null());
    Some(values.map(|value| (canonical(&value), value)).collect())
}

/// Compares the lists of allowed values, and reports each value that came or went, or the list if it is new or gone.
pub(super) fn compare(
    sides: &Sides<'_>,
    was: &str,
    name: &str,
    find: &mut impl FnMut((Area, Action), String),
) {
    let (old, new) = (&sides.old.listed, &sides.new.listed);
    if sides.goes_with_type(old.is_some(), new.is_some()) {
        return;
    }
    match (old, new) {
        (None, None) => {}
        (None, Some(values)) => find(
            (Area::Enum, Action::Added),
            format!("`{name}` takes these values only now: {}", list(values)),
        ),
        (Some(values), None) => find(
            (Area::Enum, Action::Removed),
            format!(
                "`{was}` is no longer limited to these values: {}",
                list(values)
            ),
        ),
        (Some(old), Some(new)) => {
            let quoted = !only_texts(old) || !only_texts(new);
            let missing_in = |these: &Listed, those: &Listed| -> Vec<String> {
                these
                    .iter()
                    .filter(|(key, _)| !those.contains_key(*key))
                    .map(|(_, value)| label(value, quoted))
                    .collect()
            };
            let (gone, come) = (missing_in(old, new), missing_in(new, old));
            let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
            let come: Vec<&str> = come.iter().map(String::as_str).collect();
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

/// Whether two values are the same, however their numbers are written.
pub(super) fn equal(one: &Value, other: &Value) -> bool {
    one == other || canonical(one) == canonical(other)
}

/// A text that equal values share, and no others: JSON, with sorted keys and each number as a fraction.
fn canonical(value: &Value) -> String {
    match value {
        Value::Number(number) => {
            exact(number).map_or_else(|| number.to_string(), |exact| exact.to_string())
        }
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(canonical).collect();
            format!("[{}]", values.join(","))
        }
        Value::Object(entries) => {
            let entries: BTreeMap<&String, &Value> = entries.iter().collect();
            let entries = entries.into_iter().map(|(key, value)| {
                let key = Value::from(key.as_str());
                format!("{key}:{}", canonical(value))
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn only_texts(values: &Listed) -> bool {
    values.values().all(Value::is_string)
}

/// A value as a reader says it. Where some are no texts, those that are have quotes.
fn label(value: &Value, quoted: bool) -> String {
    match value {
        Value::String(text) if !quoted => text.clone(),
        other => other.to_string(),
    }
}

fn list(values: &Listed) -> String {
    const SHOWN: usize = 12;
    let quoted = !only_texts(values);
    let mut shown: Vec<String> = values
        .values()
        .take(SHOWN)
        .map(|value| format!("`{:.60}`", label(value, quoted)))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_the_same_however_they_are_written_and_however_deep() {
        fn check(one: Value, other: Value, expected: bool) {
            assert_eq!(equal(&one, &other), expected, "{one} {other}");
            assert_eq!(equal(&other, &one), expected, "{other} {one}");
        }
        check(json!(1), json!(1.0), true);
        check(json!(0), json!(-0.0), true);
        check(json!(100), json!(1e2), true);
        check(json!(1), json!(1.5), false);
        check(json!(1), json!("1"), false);
        check(json!(1), json!(true), false);
        check(json!([1, { "a": [2.0] }]), json!([1.0, { "a": [2] }]), true);
        check(json!([1, 2]), json!([2, 1]), false);
        check(json!({ "a": 1, "b": 2 }), json!({ "b": 2.0, "a": 1 }), true);
        check(json!({ "a": 1 }), json!({ "a": 1, "b": null }), false);
        // One apart, and the same as floating-point numbers.
        check(
            json!(9_007_199_254_740_993_u64),
            json!(9_007_199_254_740_992_u64),
            false,
        );
    }
}
