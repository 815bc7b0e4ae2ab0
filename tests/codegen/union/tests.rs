//! Tests of the union, with small contracts.

use serde_json::{Value, json};

use super::*;

/// Returns the union of contracts with these schemas, for the releases v1.0, v2.0 and so on. The operation `/op` takes
/// a `Body`.
fn union(schemas: &[Value]) -> Result<(Contract, Known), Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let contracts: Vec<Contract> = schemas
        .iter()
        .enumerate()
        .map(|(index, schemas)| {
            let release = format!("v{}.0", index + 1);
            let body = json!({ "$ref": "#/components/schemas/Body" });
            let body = json!({ "application/json": { "schema": body } });
            let document = json!({
                "openapi": "3.0.1",
                "info": { "title": "test", "version": release },
                "servers": [{ "url": "http://localhost/api/v1" }],
                "paths": { "/op": { "put": {
                    "requestBody": { "content": body, "required": true },
                    "responses": { "204": { "description": "" } },
                } } },
                "components": { "schemas": schemas },
            });
            let path = folder.path().join(format!("{release}.json"));
            std::fs::write(&path, document.to_string()).unwrap();
            chv_sandbox::spec::read(&path).unwrap()
        })
        .collect();
    of(&contracts)
}

fn body(properties: Value, required: &[&str]) -> Value {
    let mut body = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        body["required"] = json!(required);
    }
    json!({ "Body": body })
}

#[track_caller]
fn check_known(known: &Known, place: &str, releases: &[u16]) {
    let found: Vec<u16> = known[place].iter().map(|release| release.major).collect();
    assert_eq!(found, releases, "{place}");
}

#[test]
fn a_property_is_of_every_release_that_has_it_and_required_only_if_all_require_it() {
    let text = || json!({ "type": "string" });
    let (contract, known) = union(&[
        body(
            json!({ "old": text(), "all": text(), "soft": text() }),
            &["old", "all"],
        ),
        body(json!({ "all": text(), "soft": text() }), &["all", "soft"]),
        body(
            json!({ "all": text(), "soft": text(), "new": text() }),
            &["all", "soft", "new"],
        ),
    ])
    .unwrap();
    let Shape::Object {
        properties,
        required,
    } = &contract.schemas["Body"].shape
    else {
        panic!("it is an object")
    };
    assert!(properties.keys().eq(["all", "new", "old", "soft"]));
    assert!(required.iter().eq(["all"]));
    check_known(&known, "/op", &[1, 2, 3]);
    check_known(&known, "Body.old", &[1]);
    check_known(&known, "Body.all", &[1, 2, 3]);
    check_known(&known, "Body.new", &[3]);
}

#[test]
fn an_inline_enumeration_is_the_named_one_of_a_newer_release() {
    let inline = json!({ "type": "string", "enum": ["Off", "Tty"] });
    let mut named = body(
        json!({ "mode": { "$ref": "#/components/schemas/Mode" } }),
        &[],
    );
    named["Mode"] = json!({ "type": "string", "enum": ["Null", "Off"] });
    let (contract, known) = union(&[body(json!({ "mode": inline }), &[]), named]).unwrap();
    assert!(contract.schemas.keys().eq(["Body", "Mode"]));
    check_known(&known, "Mode=Tty", &[1]);
    check_known(&known, "Mode=Off", &[1, 2]);
    check_known(&known, "Mode=Null", &[2]);
}

#[test]
fn a_schema_of_an_older_release_is_added_with_its_properties() {
    let mut older = body(
        json!({ "gone": { "type": "array", "items": { "$ref": "#/components/schemas/Gone" } } }),
        &[],
    );
    older["Gone"] = json!({
        "type": "object", "required": ["id"], "properties": { "id": { "type": "string" } }
    });
    let (contract, known) = union(&[older, body(json!({}), &[])]).unwrap();
    let Shape::Object { required, .. } = &contract.schemas["Gone"].shape else {
        panic!("it is an object")
    };
    assert!(required.iter().eq(["id"]));
    check_known(&known, "Gone.id", &[1]);
}

#[test]
fn the_wider_number_holds_both() {
    let number = |format: &str| body(json!({ "n": { "type": "integer", "format": format } }), &[]);
    let check = |older: &str, newer: &str, expected: Result<&str, &str>| {
        let format = union(&[number(older), number(newer)]).map(|(contract, _)| {
            let Shape::Object { properties, .. } = &contract.schemas["Body"].shape else {
                panic!("it is an object")
            };
            match &properties["n"].shape {
                Shape::Integer { format, .. } => format.clone().unwrap(),
                other => panic!("{other:?}"),
            }
        });
        match expected {
            Ok(expected) => assert_eq!(format.unwrap(), expected),
            Err(why) => assert!(format.unwrap_err()[0].contains(why)),
        }
    };
    check("uint8", "uint32", Ok("uint32"));
    check("uint64", "uint32", Ok("uint64"));
    check("int32", "int32", Ok("int32"));
    check("int64", "uint64", Err("Body.n"));
}

#[test]
fn a_type_conflict_names_its_place_and_its_releases() {
    let of = |schema: Value| body(json!({ "x": schema }), &[]);
    let text = of(json!({ "type": "string" }));
    let flag = of(json!({ "type": "boolean" }));
    let conflicts = union(&[text.clone(), flag]).unwrap_err();
    assert_eq!(conflicts, ["Body.x: string became boolean (v1.0 and v2.0)"]);
    let conflicts = union(&[text.clone(), body(json!({}), &[]), text]).unwrap_err();
    assert_eq!(
        conflicts,
        ["Body.x is missing in a release between those that know it: v1.0, v3.0"]
    );
}
