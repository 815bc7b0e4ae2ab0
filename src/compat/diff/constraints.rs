//! Compares the restrictions that are neither formats nor bounds nor lists of values.

use num_rational::BigRational;
use serde_json::Value;

use super::fraction::{exact_value, whole};
use super::sides::Sides;
use super::types::Types;
use super::values::{equal, short};
use crate::compat::rules::{Action, Area};
use crate::spec::Schema;

/// How a number restricts a value or its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Least,
    Most,
    MultipleOf,
}

/// The keywords whose value is a number, each with the types that it restricts.
const LIMITS: &[(&str, Limit, Types)] = &[
    ("maxItems", Limit::Most, Types::ARRAY),
    ("maxLength", Limit::Most, Types::STRING),
    ("maxProperties", Limit::Most, Types::OBJECT),
    ("minItems", Limit::Least, Types::ARRAY),
    ("minLength", Limit::Least, Types::STRING),
    ("minProperties", Limit::Least, Types::OBJECT),
    ("multipleOf", Limit::MultipleOf, Types::NUMBER),
];

/// The keywords that restrict a value if they are set to this flag, each with the type that it restricts.
const FLAGS: &[(&str, bool, Types)] = &[
    ("additionalProperties", false, Types::OBJECT),
    ("uniqueItems", true, Types::ARRAY),
];

/// Compares the restrictions on values of the types that both sides allow. `readOnly` and `writeOnly` are not among
/// them: they decide in which direction a property exists.
pub(super) fn compare(
    sides: &Sides<'_>,
    name: &str,
    find: &mut impl FnMut((Area, Action), String),
) {
    let schemas = [sides.old.schema, sides.new.schema];
    if schemas.iter().all(|schema| schema.constraints.is_empty()) {
        return;
    }
    let mut find = |keyword: &str, change| {
        let say = |schema: &Schema| {
            let value = schema.constraints.get(keyword);
            value.map_or("none".to_owned(), short)
        };
        let [old, new] = schemas.map(say);
        let message = format!("`{keyword}` of `{name}` is {new} now, and was {old}");
        find(change, message);
    };
    for (keyword, limit, types) in LIMITS {
        if !sides.shared.meets(*types) {
            continue;
        }
        let written = schemas.map(|schema| limit.written(schema, keyword));
        if sides.goes_with_type(written[0].is_some(), written[1].is_some()) {
            continue;
        }
        let [old, new] = written.map(|number| limit.of_types(number, sides.shared));
        let change = (!limit.implies(&old, &new), !limit.implies(&new, &old));
        let takes = |of: &Option<BigRational>, value: &Value| match size(keyword, value) {
            None => true,
            size => limit.implies(&size, of),
        };
        let takes = (
            |value: &_| takes(&old, value),
            |value: &_| takes(&new, value),
        );
        if let Some(action) = sides.restriction(change, takes) {
            find(keyword, (Area::Constraint, action));
        }
    }
    for (keyword, restricts, types) in FLAGS {
        let [old, new] =
            schemas.map(|schema| schema.constraints.get(*keyword) == Some(&(*restricts).into()));
        if sides.shared.meets(*types)
            && !sides.goes_with_type(old, new)
            && let Some(action) = sides.restriction((new && !old, old && !new), (refuses, refuses))
        {
            find(keyword, (Area::Constraint, action));
        }
    }
    let [old, new] = schemas.map(|schema| schema.constraints.get("pattern"));
    let action = match (old, new) {
        (None, Some(_)) => Action::Added,
        (Some(_), None) => Action::Removed,
        (Some(old), Some(new)) if !equal(old, new) => Action::Changed,
        _ => return,
    };
    if sides.shared.meets(Types::STRING) && !sides.goes_with_type(old.is_some(), new.is_some()) {
        find("pattern", (Area::Pattern, action));
    }
}

/// Whether a listed value meets a flag is not checked.
fn refuses(_: &Value) -> bool {
    false
}

impl Limit {
    /// Returns the number of the restriction. `None` if it restricts nothing: a minimum size of zero, or a `multipleOf`
    /// of zero.
    fn written(self, schema: &Schema, keyword: &str) -> Option<BigRational> {
        let number = schema.constraints.get(keyword).and_then(exact_value)?;
        (self == Limit::Most || number > whole(0)).then_some(number)
    }

    /// Returns the restriction on values of `types`. If these are whole numbers only, the numerator is the step: a
    /// whole number is a multiple of 3/2 only if it is a multiple of 3. Without a restriction the step is 1.
    fn of_types(self, number: Option<BigRational>, types: Types) -> Option<BigRational> {
        match self {
            Limit::MultipleOf if !types.meets(Types::FRACTION) => {
                let step = number.map(|step| BigRational::from_integer(step.numer().clone()));
                step.or(Some(whole(1)))
            }
            _ => number,
        }
    }

    /// Whether `other` allows every value that `one` allows. `None` allows every value.
    fn implies(self, one: &Option<BigRational>, other: &Option<BigRational>) -> bool {
        match (one, other) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(one), Some(other)) => match self {
                Limit::Least => one >= other,
                Limit::Most => one <= other,
                Limit::MultipleOf => (one / other).is_integer(),
            },
        }
    }
}

/// Returns the number that `keyword` restricts in `value`. `None` if the value has another type.
fn size(keyword: &str, value: &Value) -> Option<BigRational> {
    let size = match (keyword, value) {
        ("multipleOf", value) => return exact_value(value),
        ("minItems" | "maxItems", Value::Array(items)) => items.len(),
        ("minLength" | "maxLength", Value::String(text)) => text.chars().count(),
        ("minProperties" | "maxProperties", Value::Object(entries)) => entries.len(),
        _ => return None,
    };
    Some(BigRational::from_integer(size.into()))
}
