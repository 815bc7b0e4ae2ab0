//! [`Sides`]: two schemas to be compared, with the properties that are derived from their facts.

use serde_json::Value;

use super::types::Types;
use super::values::{Listed, listed};
use crate::compat::rules::Action;
use crate::spec::{Schema, Shape};

/// A schema of one of the two documents.
pub(super) struct Side<'s> {
    pub(super) schema: &'s Schema,
    /// The allowed values, if they are listed.
    pub(super) listed: Option<Listed>,
    /// The types of the allowed values.
    pub(super) types: Types,
    /// Whether `null` is allowed.
    pub(super) null: bool,
}

impl<'s> Side<'s> {
    fn of(schema: &'s Schema) -> Self {
        let listed = listed(schema);
        let types = Types::of(schema, listed.as_ref());
        let null = match (&schema.shape, schema.constraints.get("enum")) {
            // Without a type, `nullable` has no effect: `null` is a value like any other.
            (Shape::Any, Some(Value::Array(values))) => values.contains(&Value::Null),
            (Shape::Any, _) => true,
            _ => false,
        };
        Side {
            schema,
            // A list with both booleans is no restriction.
            listed: listed.filter(|values| types != Types::BOOLEAN || values.len() < 2),
            types,
            null: null || schema.nullable,
        }
    }

    /// Whether the schema has no type.
    fn is_untyped(&self) -> bool {
        self.schema.shape == Shape::Any
    }

    /// Whether the schema has neither a type nor a list of values, so that it allows `null`.
    fn is_open(&self) -> bool {
        self.is_untyped() && self.listed.is_none()
    }

    /// Whether the allowed values are listed and `holds` is true for each of them.
    pub(super) fn lists_only(&self, holds: impl Fn(&Value) -> bool) -> bool {
        self.listed
            .as_ref()
            .is_some_and(|listed| listed.values().all(holds))
    }

    /// Returns the type with its format, for readers.
    pub(super) fn kind(&self) -> String {
        match &self.schema.shape {
            Shape::Any if self.listed.is_some() => format!("of type {}", self.types.words()),
            Shape::Any => "of any type".to_owned(),
            Shape::Integer {
                format: Some(format),
                ..
            }
            | Shape::Number {
                format: Some(format),
                ..
            }
            | Shape::String {
                format: Some(format),
                ..
            } => format!("of type {} ({format})", self.schema.shape.kind()),
            shape => format!("of type {}", shape.kind()),
        }
    }
}

/// Two schemas that are compared.
pub(super) struct Sides<'s> {
    pub(super) old: Side<'s>,
    pub(super) new: Side<'s>,
    /// The change of the type, if it changed.
    pub(super) type_change: Option<Action>,
    /// The types that both sides allow. All other facts are judged by values of these types. The values of other types
    /// belong to the change of the type.
    pub(super) shared: Types,
}

impl<'s> Sides<'s> {
    pub(super) fn of(old: &'s Schema, new: &'s Schema) -> Self {
        let (old, new) = (Side::of(old), Side::of(new));
        let shared = match old.schema.shape.kind() == new.schema.shape.kind() {
            true if old.types != new.types && !old.is_untyped() => Types::named(&old.schema.shape),
            _ => old.types & new.types,
        };
        Sides {
            type_change: type_change(&old, &new),
            old,
            new,
            shared,
        }
    }

    /// Whether a keyword that only one side has belongs to the change of the type. A schema that loses its type also
    /// loses the restrictions of that type, and a schema that gets a type gets the restrictions of that type.
    pub(super) fn goes_with_type(&self, was: bool, is: bool) -> bool {
        match self.type_change {
            Some(Action::Widened) => self.new.is_untyped() && was && !is,
            Some(Action::Narrowed) => self.old.is_untyped() && !was && is,
            _ => false,
        }
    }

    /// Returns the change of `null`. `None` if it belongs to the change from or to a schema of any type.
    pub(super) fn null_change(&self) -> Option<Action> {
        if self.old.is_open() || self.new.is_open() {
            return None;
        }
        match (self.old.null, self.new.null) {
            (false, true) => Some(Action::Added),
            (true, false) => Some(Action::Removed),
            _ => None,
        }
    }

    /// Returns the effect of a changed restriction. `narrows` says that the new form refuses a value that the old form
    /// allows, and `widens` the reverse. If the values are listed, only the listed values matter: the functions in
    /// `takes` say whether the old form and the new form allow a value.
    pub(super) fn restriction(
        &self,
        (narrows, widens): (bool, bool),
        takes: (impl Fn(&Value) -> bool, impl Fn(&Value) -> bool),
    ) -> Option<Action> {
        let narrows = narrows && !self.old.lists_only(takes.1);
        let widens = widens && !self.new.lists_only(takes.0);
        match (narrows, widens) {
            (false, false) => None,
            (true, false) => Some(Action::Narrowed),
            (false, true) => Some(Action::Widened),
            (true, true) => Some(Action::Changed),
        }
    }
}

/// Returns the change of the type, if it changed.
fn type_change(old: &Side<'_>, new: &Side<'_>) -> Option<Action> {
    match (&old.schema.shape, &new.schema.shape) {
        // A new list of values restricts the types. That is reported as a new list, not as a change of the type.
        (Shape::Any, Shape::Any) if old.listed.is_none() => None,
        (Shape::Any, Shape::Any) => compare(old.types, new.types),
        (Shape::Map(_), other @ Shape::Object { .. })
        | (other @ Shape::Object { .. }, Shape::Map(_)) => {
            (!names_nothing(other)).then_some(Action::Changed)
        }
        (old, new) if old.kind() == new.kind() => None,
        _ => compare(old.types, new.types),
    }
}

fn compare(old: Types, new: Types) -> Option<Action> {
    match (old.within(new), new.within(old)) {
        (true, true) => None,
        (true, false) => Some(Action::Widened),
        (false, true) => Some(Action::Narrowed),
        (false, false) => Some(Action::Changed),
    }
}

/// Whether this is an object without named properties. Such an object equals a map, unless it takes no other
/// properties.
fn names_nothing(shape: &Shape) -> bool {
    matches!(shape, Shape::Object { properties, required } if properties.is_empty() && required.is_empty())
}
