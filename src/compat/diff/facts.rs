//! Compares the facts of a value itself: `null`, default and deprecation.

use super::sides::Sides;
use super::values::{equal, short};
use super::{bounds, constraints, enumeration};
use crate::compat::rules::{Action, Area};

/// Compares the facts of two schemas that have a type in common. The messages name the value `was` in the base and
/// `name` in the revision.
pub(super) fn compare(
    sides: &Sides<'_>,
    was: &str,
    name: &str,
    find: &mut impl FnMut((Area, Action), String),
) {
    let (old, new) = (sides.old.schema, sides.new.schema);
    match sides.null_change() {
        Some(Action::Added) => find(
            (Area::Null, Action::Added),
            format!("`{name}` may be null now"),
        ),
        Some(action) => find(
            (Area::Null, action),
            format!("`{was}` may no longer be null"),
        ),
        None => {}
    }
    bounds::compare(sides, name, find);
    match (&old.default, &new.default) {
        (None, Some(value)) => find(
            (Area::Default, Action::Added),
            format!("`{name}` has a default now: {}", short(value)),
        ),
        (Some(value), None) => find(
            (Area::Default, Action::Removed),
            format!("`{was}` has no default any more; it was {}", short(value)),
        ),
        (Some(old), Some(new)) if !equal(old, new) => find(
            (Area::Default, Action::Changed),
            format!(
                "the default of `{name}` is {} now, and was {}",
                short(new),
                short(old)
            ),
        ),
        _ => {}
    }
    match (old.deprecated, new.deprecated) {
        (false, true) => find(
            (Area::Deprecation, Action::Added),
            format!("`{name}` is deprecated now"),
        ),
        (true, false) => find(
            (Area::Deprecation, Action::Removed),
            format!("`{was}` is no longer deprecated"),
        ),
        _ => {}
    }
    enumeration::compare(sides, was, name, find);
    constraints::compare(sides, name, find);
}
