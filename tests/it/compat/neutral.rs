//! Changes of a document that leave its contract the same give no finding.

use std::collections::BTreeSet;

use chv_sandbox::spec::{Contract, Schema, Shape};
use serde_json::{Map, Value, json};

use super::{contract, findings, parse};

const RELEASES: [&str; 3] = ["v44.0", "v52.0", "v53.0"];

/// Checks that `change` leaves the contract of each release the same, in both directions.
fn check(change: impl Fn(&mut Contract)) {
    for release in RELEASES {
        let base = contract(release);
        let mut revision = base.clone();
        change(&mut revision);
        assert_ne!(base, revision, "nothing was changed");
        assert_eq!(findings(&base, &revision), [], "{release}");
        assert_eq!(findings(&revision, &base), [], "{release}, back");
    }
}

/// Checks that `change`, made to the document, leaves its contract the same.
fn check_document(change: impl Fn(&mut Value)) {
    for release in RELEASES {
        let base = contract(release);
        let mut document: Value = serde_json::from_str(&base.canonical()).unwrap();
        let before = document.clone();
        change(&mut document);
        assert_ne!(document, before, "nothing was changed");
        let revision = parse(&document.to_string()).unwrap();
        assert_eq!(findings(&base, &revision), [], "{release}");
        assert_eq!(findings(&revision, &base), [], "{release}, back");
    }
}

/// Applies `change` to every schema, from the outside in.
fn each_schema(contract: &mut Contract, change: &mut impl FnMut(&mut Schema)) {
    fn walk(schema: &mut Schema, change: &mut impl FnMut(&mut Schema)) {
        change(schema);
        match &mut schema.shape {
            Shape::Array(inner) | Shape::Map(inner) => walk(inner, change),
            Shape::Object { properties, .. } => {
                properties
                    .values_mut()
                    .for_each(|inner| walk(inner, change));
            }
            _ => {}
        }
    }
    for endpoint in contract
        .paths
        .values_mut()
        .flat_map(|methods| methods.values_mut())
    {
        let bodies = endpoint.body.iter_mut().map(|body| &mut body.content);
        let answers = endpoint
            .responses
            .values_mut()
            .map(|response| &mut response.content);
        for schema in bodies
            .chain(answers)
            .flat_map(|content| content.values_mut())
        {
            walk(schema, change);
        }
    }
    for schema in contract.schemas.values_mut() {
        walk(schema, change);
    }
}

#[test]
fn schemas_may_have_other_names() {
    check(|contract| {
        each_schema(contract, &mut |schema| {
            if let Shape::Reference(name) = &mut schema.shape {
                name.insert_str(0, "Renamed");
            }
        });
        contract.schemas = std::mem::take(&mut contract.schemas)
            .into_iter()
            .map(|(name, schema)| (format!("Renamed{name}"), schema))
            .collect();
    });
}

#[test]
fn schemas_may_be_written_where_they_are_used() {
    check(|contract| {
        let schemas = contract.schemas.clone();
        each_schema(contract, &mut |schema| {
            while let Shape::Reference(name) = &schema.shape {
                *schema = schemas[name].clone();
            }
        });
    });
}

#[test]
fn schemas_may_be_given_a_name() {
    check(|contract| {
        let mut hoisted = Vec::new();
        each_schema(contract, &mut |schema| {
            if let Shape::Object { properties, .. } = &mut schema.shape {
                for property in properties.values_mut() {
                    if !matches!(property.shape, Shape::Reference(_)) {
                        let name = format!("Hoisted{}", hoisted.len());
                        let inner = std::mem::replace(property, Schema::reference(&name));
                        hoisted.push((name, inner));
                    }
                }
            }
        });
        contract.schemas.extend(hoisted);
    });
}

#[test]
fn a_name_may_stand_for_a_name() {
    check(|contract| {
        let names: BTreeSet<String> = contract.schemas.keys().cloned().collect();
        for name in names {
            let schema = contract.schemas.remove(&name).unwrap();
            contract.schemas.insert(format!("{name}Proper"), schema);
            contract
                .schemas
                .insert(name.clone(), Schema::reference(format!("{name}Proper")));
        }
    });
}

#[test]
fn schemas_that_nothing_reaches_may_come_and_go() {
    check(|contract| {
        let unused = Schema::new(Shape::Map(Box::new(Schema::reference("VmConfig"))));
        contract.schemas.insert("Unused".to_owned(), unused);
    });
}

#[test]
fn prose_names_and_extensions_are_no_facts() {
    fn adorn(value: &mut Value) {
        match value {
            Value::Array(list) => list.iter_mut().for_each(adorn),
            Value::Object(map) => {
                let is_schema = map.get("type").is_some_and(Value::is_string);
                let is_operation = map.contains_key("responses");
                map.values_mut().for_each(adorn);
                if is_schema || is_operation {
                    map.insert("description".to_owned(), "Said anew".into());
                    map.insert("x-internal".to_owned(), json!({ "any": ["thing"] }));
                }
                if is_schema {
                    map.insert("example".to_owned(), json!([1, "two"]));
                    map.insert("title".to_owned(), "A title".into());
                }
                if is_operation {
                    map.insert("operationId".to_owned(), "another".into());
                    map.insert("tags".to_owned(), json!(["vm"]));
                }
            }
            _ => {}
        }
    }
    check_document(|document| {
        adorn(&mut document["paths"]);
        adorn(&mut document["components"]["schemas"]);
        document["info"]["description"] = "About this".into();
        document["tags"] = json!([{ "name": "vm" }]);
        document["x-generator"] = "by hand".into();
    });
}

#[test]
fn lists_without_an_order_may_be_in_any() {
    fn turn(value: &mut Value) {
        match value {
            Value::Array(list) => list.reverse(),
            Value::Object(map) => {
                map.values_mut().for_each(turn);
                let turned: Map<String, Value> = std::mem::take(map).into_iter().rev().collect();
                *map = turned;
            }
            _ => {}
        }
    }
    check_document(|document| turn(&mut document["components"]["schemas"]));
}
