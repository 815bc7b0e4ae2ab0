//! Reads one schema of a document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::fields::{Fields, Place};
use super::super::{Invalid, Problem, Schema, Shape};
use super::{PROSE, flag};

/// Keywords that OpenAPI defines for values of one type only. Beside another type they have no meaning.
const OF_ONE_TYPE: &[&str] = &[
    "additionalProperties",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "properties",
    "required",
    "uniqueItems",
];

/// Reads the schema at `place`.
pub(in crate::spec) fn schema(place: &Place<'_>) -> Result<Schema, Invalid> {
    let mut fields = place.fields()?;
    fields.drop_prose(PROSE);
    if let Some(reference) = fields.take("$ref") {
        // OpenAPI 3.0 ignores all keywords beside a reference. They are refused here, because a fact would be lost.
        fields.finish()?;
        return Ok(Schema::new(Shape::Reference(referenced(&reference)?)));
    }
    fields.drop_prose(&["example", "externalDocs", "xml"]);
    if let Some(only) = only(place) {
        // An `allOf` with one entry is that entry. Documents use it to put a description beside a reference. Facts
        // beside it are refused.
        fields.take("allOf");
        fields.finish()?;
        return schema(&only);
    }
    let default = fields.take("default").map(|place| place.value.clone());
    let nullable = flag(&mut fields, "nullable")?;
    let deprecated = flag(&mut fields, "deprecated")?;
    let mut constraints = BTreeMap::new();
    let shape = shape(&mut fields, &mut constraints, place, nullable)?;
    fields.drop_prose(OF_ONE_TYPE);
    for keyword in ["readOnly", "writeOnly"] {
        if flag(&mut fields, keyword)? {
            constraints.insert(keyword, true.into());
        }
    }
    fields.finish()?;
    Ok(Schema {
        shape,
        default,
        nullable,
        deprecated,
        constraints,
    })
}

/// Returns the only entry of an `allOf`, or `None` if it has several.
fn only<'a>(place: &Place<'a>) -> Option<Place<'a>> {
    match place.value.get("allOf")?.as_array()?.as_slice() {
        [only] => Some(Place {
            value: only,
            pointer: format!("{}/allOf/0", place.pointer),
        }),
        _ => None,
    }
}

type Constraints = BTreeMap<&'static str, Value>;

/// Reads the keyword `type`, and the keywords that belong to that type.
fn shape(
    fields: &mut Fields<'_>,
    constraints: &mut Constraints,
    place: &Place<'_>,
    nullable: bool,
) -> Result<Shape, Invalid> {
    let kind = fields.take("type");
    let name = match &kind {
        Some(kind) => kind.text()?,
        None => implied(place)?,
    };
    if name != "string" {
        constraints.extend(values(fields, nullable)?.map(|values| ("enum", values)));
    }
    Ok(match name {
        "" => {
            // In a schema without a type, each of these keywords restricts the values of its own type.
            for keyword in Schema::CONSTRAINTS {
                if OF_ONE_TYPE.contains(&keyword)
                    && let Some(place) = fields.take(keyword)
                {
                    constraints.insert(keyword, place.value.clone());
                }
            }
            Shape::Any
        }
        "boolean" => Shape::Boolean,
        "integer" => {
            let (format, minimum, maximum) = numeric(fields, constraints)?;
            Shape::Integer {
                format,
                minimum,
                maximum,
            }
        }
        "number" => {
            let (format, minimum, maximum) = numeric(fields, constraints)?;
            Shape::Number {
                format,
                minimum,
                maximum,
            }
        }
        "string" => {
            counts(fields, constraints, ["minLength", "maxLength"])?;
            if let Some(pattern) = fields.take("pattern") {
                constraints.insert("pattern", pattern.text()?.into());
            }
            let values = match fields.take("enum") {
                None => BTreeSet::new(),
                Some(place) => place.texts_or_null(nullable)?,
            };
            Shape::String {
                format: text(fields, "format")?,
                values,
            }
        }
        "array" => {
            counts(fields, constraints, ["minItems", "maxItems"])?;
            if flag(fields, "uniqueItems")? {
                constraints.insert("uniqueItems", true.into());
            }
            Shape::Array(Box::new(schema(&fields.need("items")?)?))
        }
        "object" => {
            counts(fields, constraints, ["minProperties", "maxProperties"])?;
            object(fields, constraints, place)?
        }
        // The document of v52.0 has the format where the type belongs. Only one reading is possible.
        width @ ("int8" | "int16" | "int32" | "int64" | "uint8" | "uint16" | "uint32"
        | "uint64") => Shape::Integer {
            format: Some(width.to_owned()),
            minimum: None,
            maximum: None,
        },
        other => {
            let found = format!("`{other:.60}`");
            return Err(kind.as_ref().unwrap_or(place).invalid(Problem::Expected {
                expected: "a type of OpenAPI 3.0",
                found,
            }));
        }
    })
}

/// Returns the type of a schema without the keyword `type`, from keywords that only one type has. Empty if the schema
/// allows any type.
fn implied(place: &Place<'_>) -> Result<&'static str, Invalid> {
    let mapping = place.mapping()?;
    let has = |keyword: &str| mapping.contains_key(keyword);
    let texts = |list: &Value| {
        list.as_array()
            .is_some_and(|list| list.iter().all(Value::is_string))
    };
    Ok(
        if has("properties") || has("required") || has("additionalProperties") {
            "object"
        } else if has("items") {
            "array"
        } else if mapping.get("enum").is_some_and(texts) {
            "string"
        } else {
            ""
        },
    )
}

fn object(
    fields: &mut Fields<'_>,
    constraints: &mut Constraints,
    place: &Place<'_>,
) -> Result<Shape, Invalid> {
    let properties = fields.take("properties");
    let required = fields
        .take("required")
        .map(|place| place.texts())
        .transpose()?
        .unwrap_or_default();
    if let Some(values) = fields.take("additionalProperties") {
        match (values.value, &properties) {
            // This is the default of `additionalProperties`.
            (Value::Bool(true), _) => {}
            (Value::Bool(false), _) => {
                constraints.insert("additionalProperties", false.into());
            }
            (_, None) if required.is_empty() => return Ok(Shape::Map(Box::new(schema(&values)?))),
            _ => return Err(place.invalid(Problem::Conflict("additionalProperties", "properties"))),
        }
    }
    let properties = match properties {
        None => BTreeMap::new(),
        Some(properties) => properties
            .entries()?
            .map(|(name, place)| Ok((name.to_owned(), schema(&place)?)))
            .collect::<Result<_, Invalid>>()?,
    };
    Ok(Shape::Object {
        properties,
        required,
    })
}

type Numeric = (
    Option<String>,
    Option<serde_json::Number>,
    Option<serde_json::Number>,
);

fn numeric(fields: &mut Fields<'_>, constraints: &mut Constraints) -> Result<Numeric, Invalid> {
    let mut bound = |keyword| {
        fields
            .take(keyword)
            .map(|place| place.number().cloned())
            .transpose()
    };
    let (minimum, maximum) = (bound("minimum")?, bound("maximum")?);
    if let Some(number) = bound("multipleOf")? {
        constraints.insert("multipleOf", number.into());
    }
    for keyword in ["exclusiveMinimum", "exclusiveMaximum"] {
        if flag(fields, keyword)? {
            constraints.insert(keyword, true.into());
        }
    }
    Ok((text(fields, "format")?, minimum, maximum))
}

/// Reads the keywords whose value is a length or a number of items.
fn counts(
    fields: &mut Fields<'_>,
    constraints: &mut Constraints,
    keywords: [&'static str; 2],
) -> Result<(), Invalid> {
    for keyword in keywords {
        if let Some(place) = fields.take(keyword) {
            constraints.insert(keyword, place.count()?.into());
        }
    }
    Ok(())
}

/// Reads the allowed values of a schema that is not a string. They are sorted and without repetition, so that equal
/// lists compare equal.
fn values(fields: &mut Fields<'_>, nullable: bool) -> Result<Option<Value>, Invalid> {
    let Some(place) = fields.take("enum") else {
        return Ok(None);
    };
    let values: BTreeMap<String, &Value> = place
        .list()?
        .filter(|place| !(nullable && place.value.is_null()))
        .map(|place| (place.value.to_string(), place.value))
        .collect();
    Ok(Some(values.into_values().cloned().collect()))
}

fn text(fields: &mut Fields<'_>, keyword: &'static str) -> Result<Option<String>, Invalid> {
    fields
        .take(keyword)
        .map(|place| place.text().map(str::to_owned))
        .transpose()
}

/// Returns the name that `$ref` leads to. Whether the schema exists is checked once all schemas are known.
fn referenced(place: &Place<'_>) -> Result<String, Invalid> {
    let text = place.text()?;
    match text.strip_prefix("#/components/schemas/") {
        Some(name) if !name.is_empty() && !name.contains('/') => Ok(name.to_owned()),
        _ => Err(place.invalid(Problem::DanglingReference(text.to_owned()))),
    }
}
