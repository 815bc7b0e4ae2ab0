//! Checks a JSON value against a schema: [`Contract::validate`].

use std::fmt;

use serde_json::{Number, Value};

use super::{Contract, Schema, Shape};

/// A difference between a value and the contract, with its place in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The JSON pointer into the contract: `/components/schemas/VmInfo/properties/state`. For a property that the
    /// contract doesn't have, the pointer is the one that the property would have.
    pub pointer: String,
    /// The JSON pointer into the value: `/config/disks/0/path`.
    pub place: String,
    /// The difference.
    pub kind: MismatchKind,
}

/// How a value differs from its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MismatchKind {
    /// The value has another type.
    Type {
        /// The type of the schema.
        expected: &'static str,
        /// The type of the value.
        found: &'static str,
    },
    /// The value is `null`, which the schema doesn't allow.
    Null,
    /// An optional property is `null`, which its schema doesn't allow. Most clients read it as an absent property.
    NullOptional,
    /// A string that is not among the values of the schema.
    Value {
        /// The string.
        found: String,
    },
    /// A number outside the bounds or the format of the schema.
    Range {
        /// The number.
        found: Number,
        /// The format or the bound that the number violates.
        limit: String,
    },
    /// A required property is missing.
    Missing {
        /// The name of the property.
        property: String,
    },
    /// A property that the schema doesn't have.
    Unexpected {
        /// The name of the property.
        property: String,
    },
}

impl Contract {
    /// Returns every place at which `value` differs from `schema`, in the order of the value. `pointer` is the JSON
    /// pointer of `schema` in the contract.
    ///
    /// This check is stricter than OpenAPI in one point: a property that the schema doesn't name is a mismatch. It is
    /// used to find properties that the contract lacks.
    pub fn validate(&self, schema: &Schema, pointer: &str, value: &Value) -> Vec<Mismatch> {
        let mut found = Vec::new();
        let at = At {
            pointer: pointer.to_owned(),
            place: String::new(),
        };
        self.check(schema, at, value, &mut found);
        found
    }

    /// Follows references. Returns the schema that `schema` stands for, with its JSON pointer.
    pub fn resolve<'a>(&'a self, schema: &'a Schema, pointer: &str) -> (&'a Schema, String) {
        let (mut schema, mut pointer) = (schema, pointer.to_owned());
        // This loop ends: a contract with dangling references or with a cycle of references is refused when it is read.
        while let Shape::Reference(name) = &schema.shape {
            let Some(next) = self.schemas.get(name) else {
                break;
            };
            schema = next;
            pointer = format!("/components/schemas/{}", escape(name));
        }
        (schema, pointer)
    }

    fn takes_null(&self, schema: &Schema) -> bool {
        let (resolved, _) = self.resolve(schema, "");
        schema.nullable || resolved.nullable || resolved.shape == Shape::Any
    }

    fn check(&self, schema: &Schema, mut at: At, value: &Value, found: &mut Vec<Mismatch>) {
        let mut nullable = schema.nullable;
        let (schema, pointer) = self.resolve(schema, &at.pointer);
        at.pointer = pointer;
        nullable |= schema.nullable;
        match (&schema.shape, value) {
            (Shape::Any | Shape::Reference(_), _) | (Shape::Boolean, Value::Bool(_)) => {}
            (_, Value::Null) if nullable => {}
            (_, Value::Null) => found.push(at.mismatch(MismatchKind::Null)),
            (
                Shape::Integer {
                    format,
                    minimum,
                    maximum,
                },
                Value::Number(number),
            ) if !number.is_f64() => {
                found
                    .extend(out_of_range(number, format, minimum, maximum).map(|k| at.mismatch(k)));
            }
            (
                Shape::Number {
                    minimum, maximum, ..
                },
                Value::Number(number),
            ) => {
                found.extend(out_of_range(number, &None, minimum, maximum).map(|k| at.mismatch(k)));
            }
            (Shape::String { values, .. }, Value::String(text)) => {
                if !values.is_empty() && !values.contains(text) {
                    found.push(at.mismatch(MismatchKind::Value {
                        found: text.clone(),
                    }));
                }
            }
            (Shape::Array(items), Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    let at = at.child("items", &index.to_string());
                    self.check(items, at, value, found);
                }
            }
            (Shape::Map(values), Value::Object(entries)) => {
                for (key, value) in entries {
                    let at = at.child("additionalProperties", key);
                    self.check(values, at, value, found);
                }
            }
            (
                Shape::Object {
                    properties,
                    required,
                },
                Value::Object(entries),
            ) => {
                for property in required.iter().filter(|name| !entries.contains_key(*name)) {
                    found.push(at.property(property).mismatch(MismatchKind::Missing {
                        property: property.clone(),
                    }));
                }
                for (key, value) in entries {
                    match properties.get(key) {
                        Some(schema)
                            if value.is_null()
                                && !required.contains(key)
                                && !self.takes_null(schema) =>
                        {
                            found.push(at.property(key).mismatch(MismatchKind::NullOptional));
                        }
                        Some(schema) => self.check(schema, at.property(key), value, found),
                        None => found.push(at.property(key).mismatch(MismatchKind::Unexpected {
                            property: key.clone(),
                        })),
                    }
                }
            }
            (shape, value) => found.push(at.mismatch(MismatchKind::Type {
                expected: shape.kind(),
                found: kind_of(value),
            })),
        }
    }
}

/// A place in the contract and in the value.
#[derive(Clone)]
struct At {
    pointer: String,
    place: String,
}

impl At {
    fn child(&self, keyword: &str, key: &str) -> At {
        At {
            pointer: format!("{}/{keyword}", self.pointer),
            place: format!("{}/{}", self.place, escape(key)),
        }
    }

    fn property(&self, name: &str) -> At {
        let mut child = self.child("properties", name);
        child.pointer = format!("{}/{}", child.pointer, escape(name));
        child
    }

    fn mismatch(&self, kind: MismatchKind) -> Mismatch {
        Mismatch {
            pointer: self.pointer.clone(),
            place: self.place.clone(),
            kind,
        }
    }
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The name of a value's JSON type, as OpenAPI writes it.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn out_of_range(
    number: &Number,
    format: &Option<String>,
    minimum: &Option<Number>,
    maximum: &Option<Number>,
) -> Option<MismatchKind> {
    let exceeded = |limit: String| MismatchKind::Range {
        found: number.clone(),
        limit,
    };
    // An `i128` holds every whole number that serde_json reads as one. It reads larger ones as floating-point numbers.
    let whole = |number: &Number| {
        let signed = number.as_i64().map(i128::from);
        signed.or_else(|| number.as_u64().map(i128::from))
    };
    if let (Some(format), Some(value)) = (format, whole(number))
        && let Some((least, greatest)) = bounds(format)
        && !(least..=greatest).contains(&value)
    {
        return Some(exceeded(format.clone()));
    }
    let below = |one: &Number, other: &Number| match (whole(one), whole(other)) {
        (Some(one), Some(other)) => one < other,
        _ => one.as_f64() < other.as_f64(),
    };
    if let Some(minimum) = minimum.as_ref().filter(|minimum| below(number, minimum)) {
        return Some(exceeded(format!("minimum {minimum}")));
    }
    let maximum = maximum.as_ref().filter(|maximum| below(maximum, number))?;
    Some(exceeded(format!("maximum {maximum}")))
}

/// Returns the least and the greatest value of an integer format such as `uint8`.
fn bounds(format: &str) -> Option<(i128, i128)> {
    let (signed, width) = match format.strip_prefix("uint") {
        Some(width) => (false, width),
        None => (true, format.strip_prefix("int")?),
    };
    let width: u32 = width
        .parse()
        .ok()
        .filter(|width| (1..=64).contains(width))?;
    Some(match signed {
        true => (-(1 << (width - 1)), (1 << (width - 1)) - 1),
        false => (0, (1 << width) - 1),
    })
}

impl fmt::Display for MismatchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MismatchKind::Type { expected, found } => {
                write!(f, "is of type {found}, not {expected}")
            }
            MismatchKind::Null | MismatchKind::NullOptional => f.write_str("is null"),
            MismatchKind::Value { found } => write!(f, "has the unknown value {found:?}"),
            MismatchKind::Range { found, limit } => write!(f, "is {found}, beyond {limit}"),
            MismatchKind::Missing { property } => write!(f, "`{property}` is missing"),
            MismatchKind::Unexpected { property } => {
                write!(f, "`{property}` is not in the contract")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::Release;
    use super::super::fields::Place;
    use super::super::load;
    use super::*;

    fn schema(document: Value) -> Schema {
        load::schema(&Place::root(&document)).unwrap()
    }

    #[track_caller]
    fn check(document: Value, value: Value, expected: &[(&str, &str, &str)]) {
        let contract = Contract {
            release: "v53.0".parse::<Release>().unwrap(),
            servers: Vec::new(),
            paths: BTreeMap::new(),
            schemas: BTreeMap::from([(
                "Named".to_owned(),
                schema(json!({ "type": "object", "properties": { "n": { "type": "integer" } } })),
            )]),
        };
        let found = contract.validate(&schema(document), "", &value);
        let found: Vec<_> = found
            .iter()
            .map(|m| (m.pointer.as_str(), m.place.as_str(), m.kind.to_string()))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(pointer, place, kind)| (*pointer, *place, (*kind).to_owned()))
            .collect();
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn types() {
        check(json!({ "type": "boolean" }), json!(true), &[]);
        check(json!({}), json!({ "a": [] }), &[]);
        let text = json!({ "type": "string" });
        check(text.clone(), json!("a"), &[]);
        check(
            text.clone(),
            json!(1),
            &[("", "", "is of type integer, not string")],
        );
        check(text, json!(null), &[("", "", "is null")]);
        check(
            json!({ "type": "string", "nullable": true }),
            json!(null),
            &[],
        );
        let whole = json!({ "type": "integer" });
        check(
            whole.clone(),
            json!(1.5),
            &[("", "", "is of type number, not integer")],
        );
        check(whole, json!(-1), &[]);
        check(json!({ "type": "number" }), json!(1), &[]);
    }

    #[test]
    fn values_and_ranges() {
        let kinds = json!({ "type": "string", "enum": ["a", "b"] });
        check(kinds.clone(), json!("b"), &[]);
        check(
            kinds,
            json!("c"),
            &[("", "", "has the unknown value \"c\"")],
        );
        for (format, least, greatest) in [
            ("uint8", 0, 255),
            ("int8", -128, 127),
            ("uint16", 0, 65_535),
            ("int32", -2_147_483_648_i64, 2_147_483_647_i64),
        ] {
            let width = || json!({ "type": "integer", "format": format });
            check(width(), json!(least), &[]);
            check(width(), json!(greatest), &[]);
            let below = format!("is {}, beyond {format}", least - 1);
            check(width(), json!(least - 1), &[("", "", &below)]);
            let above = format!("is {}, beyond {format}", greatest + 1);
            check(width(), json!(greatest + 1), &[("", "", &above)]);
        }
        check(
            json!({ "type": "integer", "format": "uint64" }),
            json!(u64::MAX),
            &[],
        );
        check(
            json!({ "type": "integer", "format": "int64" }),
            json!(u64::MAX),
            &[("", "", "is 18446744073709551615, beyond int64")],
        );
        let bounded = json!({ "type": "integer", "minimum": 1, "maximum": 3 });
        check(bounded.clone(), json!(1), &[]);
        check(
            bounded.clone(),
            json!(0),
            &[("", "", "is 0, beyond minimum 1")],
        );
        check(bounded, json!(4), &[("", "", "is 4, beyond maximum 3")]);
    }

    #[test]
    fn places() {
        let document = json!({
            "type": "object",
            "required": ["id", "gone"],
            "properties": {
                "id": { "type": "string" },
                "list": { "type": "array", "items": { "$ref": "#/components/schemas/Named" } },
                "map": { "type": "object", "additionalProperties": { "type": "integer" } },
                "unset": { "type": "string" },
                "nothing": { "type": "string", "nullable": true },
            },
        });
        let value = json!({
            "id": "x", "list": [{ "n": 1 }, { "n": "2", "a/b": 0 }], "map": { "k~": true }, "unset": null,
            "nothing": null,
        });
        check(
            document,
            value,
            &[
                ("/properties/gone", "/gone", "`gone` is missing"),
                (
                    "/components/schemas/Named/properties/a~1b",
                    "/list/1/a~1b",
                    "`a/b` is not in the contract",
                ),
                (
                    "/components/schemas/Named/properties/n",
                    "/list/1/n",
                    "is of type string, not integer",
                ),
                (
                    "/properties/map/additionalProperties",
                    "/map/k~0",
                    "is of type boolean, not integer",
                ),
                ("/properties/unset", "/unset", "is null"),
            ],
        );
    }
}
