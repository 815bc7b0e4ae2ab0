//! The values that a schema lists, and the equality of two values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fraction::exact;
use crate::spec::{Schema, Shape};

/// The values that a schema lists, by their canonical text.
pub(super) type Listed = BTreeMap<String, Value>;

/// Returns the values that `schema` lists, if it lists any. `null` is left out, because it is compared as a fact of its
/// own.
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

/// Whether two values are equal, whatever the notation of their numbers is.
pub(super) fn equal(one: &Value, other: &Value) -> bool {
    one == other || canonical(one) == canonical(other)
}

/// Returns a text that only equal values share: JSON with sorted keys and with each number as a fraction.
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

/// Returns the beginning of a value, which is enough to recognise it.
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
        // The numbers differ by one, but are equal as floating-point numbers.
        check(
            json!(9_007_199_254_740_993_u64),
            json!(9_007_199_254_740_992_u64),
            false,
        );
    }
}
