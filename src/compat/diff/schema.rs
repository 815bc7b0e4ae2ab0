//! What two schemas differ in.

use serde_json::Value;

use super::number::{Interval, format, format_change};
use super::pairs::{Comparison, PairId};
use super::place::Place;
use super::values::short;
use crate::compat::rules::{Action, Area};
use crate::spec::{Schema, Shape};

impl<'c> Comparison<'c> {
    /// Compares two schemas, neither of which is a reference. `area` says what they are to what they stand in.
    pub(super) fn compare(
        &mut self,
        pair: PairId,
        base: &Place<'c>,
        revision: &Place<'c>,
        area: Area,
    ) {
        self.count();
        let (old, new) = (base.schema, revision.schema);
        if let Some(action) = type_change(&old.shape, &new.shape) {
            let message = format!(
                "`{}` is {} now, and was {}",
                revision.name,
                kind(new),
                kind(old)
            );
            return self.find(pair, (area, action), revision.seat.clone(), message);
        }
        self.facts(pair, base, revision);
        match (&old.shape, &new.shape) {
            (Shape::Array(old), Shape::Array(new)) => {
                self.meet(pair, &base.items(old), &revision.items(new), Area::Items);
            }
            (Shape::Object { .. }, Shape::Object { .. }) => self.properties(pair, base, revision),
            (Shape::Map(_), _) | (_, Shape::Map(_)) => {
                let (base, revision) = (base.values(), revision.values());
                self.meet(pair, &base, &revision, Area::MapValues);
            }
            _ => {}
        }
    }

    /// Compares everything that is not inside the two: what is said of the value itself.
    fn facts(&mut self, pair: PairId, base: &Place<'c>, revision: &Place<'c>) {
        let (old, new) = (base.schema, revision.schema);
        let mut find = |change: (Area, Action), message: String| {
            let path = match change.1 {
                Action::Removed => base.seat.clone(),
                _ => revision.seat.clone(),
            };
            self.find(pair, change, path, message);
        };
        let (was, name) = (&base.name, &revision.name);

        if old.shape != Shape::Any {
            match (old.nullable, new.nullable) {
                (false, true) => find(
                    (Area::Null, Action::Added),
                    format!("`{name}` may be null now"),
                ),
                (true, false) => find(
                    (Area::Null, Action::Removed),
                    format!("`{was}` may no longer be null"),
                ),
                _ => {}
            }
        }
        if format(old) != format(new) {
            if let Some(action) = format_change(old, new) {
                let say = |format: Option<&str>| {
                    format.map_or("none".to_owned(), |format| format!("`{format}`"))
                };
                let (old, new) = (say(format(old)), say(format(new)));
                find(
                    (Area::Format, action),
                    format!("the format of `{name}` is {new} now, and was {old}"),
                );
            }
        } else {
            let (then, now) = (Interval::of(old), Interval::of(new));
            let ends = [
                (Area::Minimum, "minimum", then.low_change(&now)),
                (Area::Maximum, "maximum", then.high_change(&now)),
            ];
            for (area, word, action) in ends {
                if let Some(action) = action {
                    let (old, new) = (bound(old, area), bound(new, area));
                    find(
                        (area, action),
                        format!("the {word} of `{name}` is {new} now, and was {old}"),
                    );
                }
            }
        }
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
        super::values::compare(old, new, was, name, &mut find);
        super::constraints::compare(old, new, name, &mut find);
    }
}

/// What became of the type, if it is another.
fn type_change(old: &Shape, new: &Shape) -> Option<Action> {
    match (old, new) {
        (Shape::Integer { .. }, Shape::Number { .. }) => Some(Action::Widened),
        (Shape::Number { .. }, Shape::Integer { .. }) => Some(Action::Narrowed),
        (old, new) if old.kind() == new.kind() => None,
        (Shape::Map(_), other) | (other, Shape::Map(_)) if is_open(other) => None,
        (Shape::Any, _) => Some(Action::Narrowed),
        (_, Shape::Any) => Some(Action::Widened),
        _ => Some(Action::Changed),
    }
}

/// Whether this is an object of which nothing is said: a map with any values.
fn is_open(shape: &Shape) -> bool {
    matches!(shape, Shape::Object { properties, required } if properties.is_empty() && required.is_empty())
}

/// The type as a reader says it.
fn kind(schema: &Schema) -> String {
    match (&schema.shape, format(schema)) {
        (Shape::Any, _) => "of any type".to_owned(),
        (shape, None) => format!("of type {}", shape.kind()),
        (shape, Some(format)) => format!("of type {} ({format})", shape.kind()),
    }
}

fn bound(schema: &Schema, area: Area) -> String {
    let (Shape::Integer {
        minimum, maximum, ..
    }
    | Shape::Number {
        minimum, maximum, ..
    }) = &schema.shape
    else {
        return "none".to_owned();
    };
    let (number, exclusive) = match area {
        Area::Minimum => (minimum, "exclusiveMinimum"),
        _ => (maximum, "exclusiveMaximum"),
    };
    match number {
        None => "none".to_owned(),
        Some(number) if schema.constraints.contains_key(exclusive) => {
            format!("{number} (exclusive)")
        }
        Some(number) => number.to_string(),
    }
}

/// Whether two values are the same, however their numbers are written.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.is_f64() != other.is_f64() && one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, one)| other.get(key).is_some_and(|other| equal(one, other)))
        }
        _ => one == other,
    }
}
