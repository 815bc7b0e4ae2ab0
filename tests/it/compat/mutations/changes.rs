//! The changes that are tried, and the findings that each of them gives.

use std::collections::{BTreeMap, BTreeSet};

use chv_sandbox::spec::{Schema, Shape};
use serde_json::{Number, json};

/// A change to one property of one named object: it may change the property, its name and the object's list of required
/// names. It returns `false`, and changes nothing, where it does not fit.
pub(super) type Change = fn(&mut BTreeMap<String, Schema>, &mut BTreeSet<String>, &str) -> bool;

/// Each change with the findings that it gives in a request and in a response.
pub(super) const CHANGES: &[(Change, &[[&str; 2]])] = &[
    (
        |properties, required, name| {
            required.remove(name);
            properties.remove(name).is_some()
        },
        &[[
            "Breaking request-property-removed",
            "Breaking response-property-removed",
        ]],
    ),
    (
        // The property is removed, and its name stays in the list of required names.
        |properties, _, name| properties.remove(name).is_some(),
        &[[
            "Breaking request-property-removed",
            "Breaking response-property-removed",
        ]],
    ),
    (
        |_, required, name| required.insert(name.to_owned()),
        &[[
            "Breaking request-property-became-required",
            "Info response-property-became-required",
        ]],
    ),
    (
        |_, required, name| required.remove(name),
        &[[
            "Info request-property-became-optional",
            "Breaking response-property-became-optional",
        ]],
    ),
    (
        |properties, _, name| {
            let schema = properties.get_mut(name).unwrap();
            let old = std::mem::replace(schema, Schema::new(Shape::Boolean));
            schema.deprecated = old.deprecated;
            old.shape.kind() != "boolean"
        },
        &[[
            "Breaking request-type-changed",
            "Breaking response-type-changed",
        ]],
    ),
    (
        |properties, _, name| {
            let Shape::Integer { format, .. } = &mut properties.get_mut(name).unwrap().shape else {
                return false;
            };
            matches!(
                format.replace("int8".to_owned()).as_deref(),
                None | Some("int16" | "int32" | "int64")
            )
        },
        &[[
            "Breaking request-format-narrowed",
            "Info response-format-narrowed",
        ]],
    ),
    (
        |properties, _, name| {
            let Shape::Integer { format, .. } = &mut properties.get_mut(name).unwrap().shape else {
                return false;
            };
            format.take().is_some()
        },
        &[[
            "Info request-format-widened",
            "Breaking response-format-widened",
        ]],
    ),
    (
        |properties, _, name| {
            let Shape::Integer { maximum, .. } = &mut properties.get_mut(name).unwrap().shape
            else {
                return false;
            };
            *maximum = Some(100.into());
            true
        },
        &[[
            "Breaking request-maximum-narrowed",
            "Info response-maximum-narrowed",
        ]],
    ),
    (
        |properties, _, name| {
            let Shape::Integer { minimum, .. } = &mut properties.get_mut(name).unwrap().shape
            else {
                return false;
            };
            minimum.take().is_some()
        },
        &[[
            "Info request-minimum-widened",
            "Breaking response-minimum-widened",
        ]],
    ),
    (
        |properties, _, name| {
            let Shape::String { values, .. } = &mut properties.get_mut(name).unwrap().shape else {
                return false;
            };
            let open = values.is_empty();
            values.insert("Some".to_owned());
            open
        },
        &[["Breaking request-enum-added", "Info response-enum-added"]],
    ),
    (
        |properties, _, name| {
            set_default(
                properties,
                name,
                |default| default.is_some(),
                Some(json!("another")),
            )
        },
        &[[
            "Warning request-default-changed",
            "Info response-default-changed",
        ]],
    ),
    (
        |properties, _, name| set_default(properties, name, |default| default.is_some(), None),
        &[[
            "Warning request-default-removed",
            "Info response-default-removed",
        ]],
    ),
    (
        |properties, _, name| {
            set_default(
                properties,
                name,
                |default| default.is_none(),
                Some(json!(7)),
            )
        },
        &[["Info request-default-added", "Info response-default-added"]],
    ),
    (
        |properties, _, name| {
            let schema = properties.get_mut(name).unwrap();
            schema.nullable = true;
            !matches!(schema.shape, Shape::Reference(_))
        },
        &[["Info request-null-added", "Breaking response-null-added"]],
    ),
    (
        |properties, _, name| becomes_number(properties, name, |maximum| maximum),
        &[[
            "Info request-type-widened",
            "Breaking response-type-widened",
        ]],
    ),
    (
        // Facts that change together with the type are found too.
        |properties, _, name| {
            let fits = becomes_number(properties, name, |_| Some(100.into()));
            let schema = properties.get_mut(name).unwrap();
            let was_nullable = std::mem::replace(&mut schema.nullable, true);
            fits && !was_nullable
        },
        &[
            [
                "Info request-type-widened",
                "Breaking response-type-widened",
            ],
            [
                "Breaking request-maximum-narrowed",
                "Info response-maximum-narrowed",
            ],
            ["Info request-null-added", "Breaking response-null-added"],
        ],
    ),
    (
        |properties, _, name| {
            let schema = properties.get_mut(name).unwrap();
            let old = std::mem::replace(&mut schema.shape, Shape::Any);
            !matches!(old, Shape::Any | Shape::Reference(_))
        },
        &[[
            "Info request-type-widened",
            "Breaking response-type-widened",
        ]],
    ),
    (
        |properties, _, name| {
            let schema = properties.get_mut(name).unwrap();
            schema.constraints.insert("multipleOf", json!(7));
            matches!(schema.shape, Shape::Integer { .. })
        },
        &[[
            "Breaking request-constraint-narrowed",
            "Info response-constraint-narrowed",
        ]],
    ),
    (
        |properties, _, name| {
            let schema = properties.get_mut(name).unwrap();
            schema.constraints.insert("readOnly", json!(true));
            !matches!(schema.shape, Shape::Reference(_))
        },
        &[["Breaking request-property-removed", ""]],
    ),
];

/// Makes a number of an integer. `maximum` maps the integer's greatest value to the number's.
fn becomes_number(
    properties: &mut BTreeMap<String, Schema>,
    name: &str,
    limit: fn(Option<Number>) -> Option<Number>,
) -> bool {
    let schema = properties.get_mut(name).unwrap();
    let Shape::Integer {
        minimum, maximum, ..
    } = &schema.shape
    else {
        return false;
    };
    schema.shape = Shape::Number {
        format: None,
        minimum: minimum.clone(),
        maximum: limit(maximum.clone()),
    };
    true
}

fn set_default(
    properties: &mut BTreeMap<String, Schema>,
    name: &str,
    fits: fn(&Option<serde_json::Value>) -> bool,
    default: Option<serde_json::Value>,
) -> bool {
    let schema = properties.get_mut(name).unwrap();
    let fits = fits(&schema.default) && !matches!(schema.shape, Shape::Reference(_));
    schema.default = default;
    fits
}
