//! [`Types`]: the set of JSON types that a schema allows.

use std::ops::{BitAnd, BitOr};

use serde_json::Value;

use super::fraction::{exact, exact_value, whole};
use super::values::Listed;
use crate::spec::{Schema, Shape};

/// A set of types. Whole numbers and numbers with a fraction are separate members, so that `integer` is a subset of
/// `number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Types(u8);

impl Types {
    const NONE: Types = Types(0);
    pub(super) const BOOLEAN: Types = Types(1);
    pub(super) const WHOLE: Types = Types(1 << 1);
    pub(super) const FRACTION: Types = Types(1 << 2);
    pub(super) const NUMBER: Types = Types(Self::WHOLE.0 | Self::FRACTION.0);
    pub(super) const STRING: Types = Types(1 << 3);
    pub(super) const ARRAY: Types = Types(1 << 4);
    pub(super) const OBJECT: Types = Types(1 << 5);
    const ANY: Types = Types((1 << 6) - 1);

    /// Returns the types that the keyword `type` allows.
    pub(super) fn named(shape: &Shape) -> Types {
        match shape {
            Shape::Any | Shape::Reference(_) => Types::ANY,
            Shape::Boolean => Types::BOOLEAN,
            Shape::Integer { .. } => Types::WHOLE,
            Shape::Number { .. } => Types::NUMBER,
            Shape::String { .. } => Types::STRING,
            Shape::Array(_) => Types::ARRAY,
            Shape::Object { .. } | Shape::Map(_) => Types::OBJECT,
        }
    }

    /// Returns the types of the values that `schema` allows. `listed` are the allowed values, if there is a list. A
    /// number that must be a multiple of a whole number is whole.
    pub(super) fn of(schema: &Schema, listed: Option<&Listed>) -> Types {
        let named = Types::named(&schema.shape);
        let step = schema.constraints.get("multipleOf").and_then(exact_value);
        let found = match listed {
            Some(listed) => {
                let types = listed.values().map(Types::of_value);
                named & types.fold(Types::NONE, BitOr::bitor)
            }
            None if matches!(schema.shape, Shape::Number { .. })
                && step.is_some_and(|step| step > whole(0) && step.is_integer()) =>
            {
                Types::WHOLE
            }
            None => named,
        };
        // A list without a value of the schema's type allows nothing. In this case only the type can be compared.
        match found {
            Types::NONE => named,
            found => found,
        }
    }

    fn of_value(value: &Value) -> Types {
        match value {
            Value::Null => Types::NONE,
            Value::Bool(_) => Types::BOOLEAN,
            Value::Number(number) if exact(number).is_some_and(|exact| exact.is_integer()) => {
                Types::WHOLE
            }
            Value::Number(_) => Types::FRACTION,
            Value::String(_) => Types::STRING,
            Value::Array(_) => Types::ARRAY,
            Value::Object(_) => Types::OBJECT,
        }
    }

    /// Whether the two sets have a type in common.
    pub(super) fn meets(self, other: Types) -> bool {
        self & other != Types::NONE
    }

    /// Whether `other` has all types of this set.
    pub(super) fn within(self, other: Types) -> bool {
        self & other == self
    }

    /// Returns the types for readers: `integer or string`.
    pub(super) fn words(self) -> String {
        let number = match self & Types::NUMBER {
            Types::WHOLE => "integer",
            _ => "number",
        };
        let words = [
            (Types::BOOLEAN, "boolean"),
            (Types::NUMBER, number),
            (Types::STRING, "string"),
            (Types::ARRAY, "array"),
            (Types::OBJECT, "object"),
        ];
        let words = words.iter().filter(|(types, _)| self.meets(*types));
        let words: Vec<&str> = words.map(|(_, word)| *word).collect();
        words.join(" or ")
    }
}

impl BitAnd for Types {
    type Output = Types;

    fn bitand(self, other: Types) -> Types {
        Types(self.0 & other.0)
    }
}

impl BitOr for Types {
    type Output = Types;

    fn bitor(self, other: Types) -> Types {
        Types(self.0 | other.0)
    }
}
