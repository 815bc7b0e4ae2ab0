//! Compares the lists of allowed values.

use serde_json::Value;

use super::rename;
use super::sides::Sides;
use super::values::Listed;
use crate::compat::rules::{Action, Area};

/// Compares the lists of allowed values. Reports each value that came or went, or the whole list if it is new or gone.
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

fn only_texts(values: &Listed) -> bool {
    values.values().all(Value::is_string)
}

/// Formats a value for a reader. If some values of the list are not strings, the strings are quoted.
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
