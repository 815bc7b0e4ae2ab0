//! Every small change at every place of a real contract gives one finding for each direction in which the place
//! travels, and no other.

use std::collections::{BTreeMap, BTreeSet};

use chv_sandbox::compat::Direction::{Request, Response};
use chv_sandbox::compat::{Direction, Level};
use chv_sandbox::spec::{Contract, Schema, Shape};
use serde_json::json;

use super::{contract, findings};

/// A change to one property of one named object: done to the property, its name, and the object's required names. It
/// does nothing, and says so, where it does not fit.
type Change = fn(&mut BTreeMap<String, Schema>, &mut BTreeSet<String>, &str) -> bool;

/// What each change gives in a request and in a response.
const CHANGES: &[(Change, [&str; 2])] = &[
    (
        |properties, required, name| {
            required.remove(name);
            properties.remove(name).is_some()
        },
        [
            "Breaking request-property-removed",
            "Breaking response-property-removed",
        ],
    ),
    (
        // A hand that forgets the list of the required ones.
        |properties, _, name| properties.remove(name).is_some(),
        [
            "Breaking request-property-removed",
            "Breaking response-property-removed",
        ],
    ),
    (
        |_, required, name| required.insert(name.to_owned()),
        [
            "Breaking request-property-became-required",
            "Info response-property-became-required",
        ],
    ),
    (
        |_, required, name| required.remove(name),
        [
            "Info request-property-became-optional",
            "Breaking response-property-became-optional",
        ],
    ),
    (
        |properties, _, name| {
            let schema = properties.get_mut(name).unwrap();
            let old = std::mem::replace(schema, Schema::new(Shape::Boolean));
            schema.deprecated = old.deprecated;
            old.shape.kind() != "boolean"
        },
        [
            "Breaking request-type-changed",
            "Breaking response-type-changed",
        ],
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
        [
            "Breaking request-format-narrowed",
            "Info response-format-narrowed",
        ],
    ),
    (
        |properties, _, name| {
            let Shape::Integer { format, .. } = &mut properties.get_mut(name).unwrap().shape else {
                return false;
            };
            format.take().is_some()
        },
        [
            "Info request-format-widened",
            "Breaking response-format-widened",
        ],
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
        [
            "Breaking request-maximum-narrowed",
            "Info response-maximum-narrowed",
        ],
    ),
    (
        |properties, _, name| {
            let Shape::Integer { minimum, .. } = &mut properties.get_mut(name).unwrap().shape
            else {
                return false;
            };
            minimum.take().is_some()
        },
        [
            "Info request-minimum-widened",
            "Breaking response-minimum-widened",
        ],
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
        ["Breaking request-enum-added", "Info response-enum-added"],
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
        [
            "Warning request-default-changed",
            "Info response-default-changed",
        ],
    ),
    (
        |properties, _, name| set_default(properties, name, |default| default.is_some(), None),
        [
            "Warning request-default-removed",
            "Info response-default-removed",
        ],
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
        ["Info request-default-added", "Info response-default-added"],
    ),
    (
        |properties, _, name| {
            let schema = properties.get_mut(name).unwrap();
            schema.nullable = true;
            !matches!(schema.shape, Shape::Reference(_))
        },
        ["Info request-null-added", "Breaking response-null-added"],
    ),
];

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

/// Every property of every named object.
fn places(contract: &Contract) -> Vec<(String, String)> {
    contract
        .schemas
        .iter()
        .filter_map(|(object, schema)| match &schema.shape {
            Shape::Object { properties, .. } => Some((object, properties)),
            _ => None,
        })
        .flat_map(|(object, properties)| {
            properties
                .keys()
                .map(|property| (object.clone(), property.clone()))
        })
        .collect()
}

/// The operations that reach the schema `name` in `direction`, found in the plainest way there is.
fn reaching(contract: &Contract, name: &str, direction: Direction) -> BTreeSet<String> {
    fn names<'c>(contract: &'c Contract, schema: &'c Schema, found: &mut BTreeSet<&'c str>) {
        match &schema.shape {
            Shape::Reference(name) if found.insert(name) => {
                names(contract, &contract.schemas[name], found);
            }
            Shape::Array(inner) | Shape::Map(inner) => names(contract, inner, found),
            Shape::Object { properties, .. } => properties
                .values()
                .for_each(|property| names(contract, property, found)),
            _ => {}
        }
    }
    contract
        .paths
        .iter()
        .filter(|(_, methods)| {
            let mut found = BTreeSet::new();
            for endpoint in methods.values() {
                let bodies: Vec<&Schema> = match direction {
                    Request => endpoint
                        .body
                        .iter()
                        .flat_map(|body| body.content.values())
                        .collect(),
                    Response => endpoint
                        .responses
                        .values()
                        .flat_map(|response| response.content.values())
                        .collect(),
                };
                for schema in bodies {
                    names(contract, schema, &mut found);
                }
            }
            found.contains(name)
        })
        .map(|(path, _)| path.trim_start_matches('/').to_owned())
        .collect()
}

#[test]
fn one_change_gives_one_finding_for_each_direction() {
    let base = contract("v53.0");
    let mut tried = vec![0; CHANGES.len()];
    for (turn, (object, property)) in places(&base).into_iter().enumerate() {
        for (index, (change, expected)) in CHANGES.iter().enumerate() {
            // A third of all, so that this stays a matter of seconds; the places of each change are spread evenly.
            if !(turn + index).is_multiple_of(3) {
                continue;
            }
            let mut revision = base.clone();
            let Shape::Object {
                properties,
                required,
            } = &mut revision.schemas.get_mut(&object).unwrap().shape
            else {
                unreachable!("only objects have properties");
            };
            if !change(properties, required, &property) {
                continue;
            }
            tried[index] += 1;
            let path = format!("/components/schemas/{object}/properties/{property}");
            let found: BTreeSet<_> = findings(&base, &revision)
                .into_iter()
                .map(|found| {
                    assert!(found.message.contains(&property), "{}", found.message);
                    let line = format!("{:?} {}", found.level, found.id);
                    (found.direction, line, found.path, found.affects)
                })
                .collect();
            let expected: BTreeSet<_> = [Request, Response]
                .into_iter()
                .zip(expected)
                .map(|(direction, line)| {
                    let affects = reaching(&base, &object, direction);
                    (direction, (*line).to_owned(), path.clone(), affects)
                })
                .filter(|(.., affects)| !affects.is_empty())
                .collect();
            assert_eq!(found, expected, "{object}.{property}, change {index}");
        }
    }
    assert!(tried.iter().all(|tried| *tried > 0), "{tried:?}");
}

#[test]
fn an_added_property_is_found_once_and_a_renamed_one_is_called_so() {
    let base = contract("v53.0");
    for (object, property) in places(&base) {
        let mut revision = base.clone();
        let Shape::Object {
            properties,
            required,
        } = &mut revision.schemas.get_mut(&object).unwrap().shape
        else {
            unreachable!("only objects have properties");
        };
        let schema = properties.remove(&property).unwrap();
        let was_required = required.remove(&property);
        let name = format!("{property}_bis");
        properties.insert(name.clone(), schema);
        if was_required {
            required.insert(name.clone());
        }
        let found = findings(&base, &revision);
        for direction in [Request, Response] {
            let affects = reaching(&base, &object, direction);
            let of_direction: Vec<_> = found
                .iter()
                .filter(|found| found.direction == direction)
                .collect();
            if affects.is_empty() {
                assert!(of_direction.is_empty());
                continue;
            }
            let [one, other] = of_direction[..] else {
                panic!("{object}.{property}: {of_direction:#?}");
            };
            let (gone, new) = match one.id.ends_with("removed") {
                true => (one, other),
                false => (other, one),
            };
            assert_eq!(gone.level, Level::Breaking);
            assert!(
                gone.message.ends_with(&format!("`{name}`")),
                "{}",
                gone.message
            );
            let expected = match (direction, was_required) {
                (Request, true) => ("request-required-property-added", Level::Breaking),
                (Request, false) => ("request-property-added", Level::Info),
                (Response, _) => ("response-property-added", Level::Info),
            };
            assert_eq!((new.id, new.level), expected);
            assert!(new.path.ends_with(&name));
            assert!(
                new.message.ends_with(&format!("`{property}`")),
                "{}",
                new.message
            );
            assert_eq!((&gone.affects, &new.affects), (&affects, &affects));
        }
    }
}
