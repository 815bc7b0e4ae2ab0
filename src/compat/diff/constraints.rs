//! Restrictions that no document of upstream's has, and another may.

use serde_json::Value;

use super::values::short;
use crate::compat::rules::{Action, Area};
use crate::spec::Schema;

/// Compares the restrictions that are neither bounds nor allowed values. `readOnly` and `writeOnly` are none: they say
/// in which direction a property is there at all.
pub(super) fn compare(
    old: &Schema,
    new: &Schema,
    name: &str,
    find: &mut impl FnMut((Area, Action), String),
) {
    for keyword in Schema::CONSTRAINTS {
        let (old, new) = (old.constraints.get(keyword), new.constraints.get(keyword));
        let change = match (keyword, old, new) {
            (_, old, new) if old == new => continue,
            ("enum" | "exclusiveMinimum" | "exclusiveMaximum" | "readOnly" | "writeOnly", ..) => {
                continue;
            }
            ("pattern", None, _) => (Area::Pattern, Action::Added),
            ("pattern", _, None) => (Area::Pattern, Action::Removed),
            ("pattern", ..) => (Area::Pattern, Action::Changed),
            (_, None, _) => (Area::Constraint, Action::Narrowed),
            (_, _, None) => (Area::Constraint, Action::Widened),
            (_, Some(old), Some(new)) => (Area::Constraint, moved(keyword, old, new)),
        };
        let say = |value: Option<&Value>| value.map_or("none".to_owned(), short);
        let (old, new) = (say(old), say(new));
        find(
            change,
            format!("`{keyword}` of `{name}` is {new} now, and was {old}"),
        );
    }
}

/// What became of a restriction whose value is another.
fn moved(keyword: &str, old: &Value, new: &Value) -> Action {
    let (Some(old), Some(new)) = (old.as_f64(), new.as_f64()) else {
        return Action::Changed;
    };
    let divides = |part: f64, whole: f64| part != 0.0 && whole % part == 0.0;
    match keyword {
        "multipleOf" if divides(new, old) => Action::Widened,
        "multipleOf" if divides(old, new) => Action::Narrowed,
        "multipleOf" => Action::Changed,
        _ if keyword.starts_with("min") == (new > old) => Action::Narrowed,
        _ => Action::Widened,
    }
}
