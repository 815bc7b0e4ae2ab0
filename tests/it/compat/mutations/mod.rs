//! Every small change at every place of a real contract gives one finding for each direction in which that place is
//! sent, and no other; several changes at one place give one each.

mod changes;

use std::collections::BTreeSet;

use chv_sandbox::compat::Direction::{Request, Response};
use chv_sandbox::compat::{Direction, Level};
use chv_sandbox::spec::{Contract, Schema, Shape};
use serde_json::json;

use super::{contract, findings};
use changes::CHANGES;

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

/// The operations that reach the schema `name` in `direction`, found by a plain search.
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
fn each_change_gives_one_finding_for_each_direction() {
    let base = contract("v53.0");
    let mut tried = vec![0; CHANGES.len()];
    for (turn, (object, property)) in places(&base).into_iter().enumerate() {
        for (index, (change, expected)) in CHANGES.iter().enumerate() {
            // Only every third place is tried, spread evenly over the places of each change, so that the test takes
            // seconds.
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
                .enumerate()
                .flat_map(|(at, direction)| {
                    expected.iter().map(move |lines| (direction, lines[at]))
                })
                .filter(|(_, line)| !line.is_empty())
                .map(|(direction, line)| {
                    let affects = reaching(&base, &object, direction);
                    (direction, line.to_owned(), path.clone(), affects)
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

#[test]
fn a_property_is_read_only_by_the_schema_behind_its_name() {
    let base = contract("v53.0");
    for (object, property) in places(&base).into_iter().step_by(3) {
        let mut revision = base.clone();
        let Shape::Object { properties, .. } =
            &mut revision.schemas.get_mut(&object).unwrap().shape
        else {
            unreachable!("only objects have properties");
        };
        let named = Schema::reference("ReadOnly");
        let schema = properties.insert(property.clone(), named).unwrap();
        let mut schema = base.resolve(&schema, "").0.clone();
        schema.constraints.insert("readOnly", json!(true));
        revision.schemas.insert("ReadOnly".to_owned(), schema);
        let found: Vec<_> = findings(&base, &revision)
            .into_iter()
            .map(|found| (found.id, found.path, found.affects))
            .collect();
        let affects = reaching(&base, &object, Request);
        let expected = (
            "request-property-removed",
            format!("/components/schemas/{object}/properties/{property}"),
            affects.clone(),
        );
        let expected: Vec<_> = [expected]
            .into_iter()
            .filter(|_| !affects.is_empty())
            .collect();
        assert_eq!(found, expected, "{object}.{property}");
    }
}
