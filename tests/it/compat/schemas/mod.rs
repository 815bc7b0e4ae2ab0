//! The facts that one schema states about a value are judged one by one, wherever the schema stands and even if its
//! type changed.

mod numbers;
mod properties;
mod types;

use std::collections::BTreeSet;

use chv_sandbox::compat::Direction::{Request, Response};
use chv_sandbox::compat::{Direction, Level};

use super::compare;

/// Where a schema can stand: the place, the name that the rules give its type there, and how it is written there before
/// and after.
const PLACES: &[(&str, &str, Written, Written)] = &[
    (BODY, "type", Inline, Inline),
    (BODY, "type", Named, Chained),
    (PROPERTY, "type", Inline, Inline),
    (PROPERTY, "type", Inline, Named),
    (PROPERTY, "type", Named, Named),
    (ITEMS, "items", Inline, Inline),
    (ITEMS, "items", Chained, Inline),
    // A schema that has a name on both sides is judged by itself.
    (ITEMS, "type", Chained, Named),
    (MAP_VALUES, "map-values", Inline, Inline),
    (MAP_VALUES, "type", Named, Named),
    (DEEP, "type", Inline, Named),
];

const BODY: &str = "SCHEMA";
const PROPERTY: &str = "{ type: object, properties: { a: SCHEMA } }";
const ITEMS: &str = "{ type: array, items: SCHEMA }";
const MAP_VALUES: &str = "{ type: object, additionalProperties: SCHEMA }";
const DEEP: &str = "{ type: array, items: { type: object, properties: { a: SCHEMA } } }";

/// Whether a schema is written where it stands or has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Inline,
    Named,
    /// The name stands for another name.
    Chained,
}

use Written::{Chained, Inline, Named};

/// A document whose one endpoint takes and answers with `position`, in which `schema` stands.
fn document(position: &str, written: Written, schema: &str) -> String {
    let reference = |name: &str| format!("{{ $ref: \"#/components/schemas/{name}\" }}");
    let there = match written {
        Inline => schema.to_owned(),
        Named => reference("Named"),
        Chained => reference("Chained"),
    };
    let content = format!(
        "content: {{ application/json: {{ schema: {} }} }}",
        position.replace("SCHEMA", &there)
    );
    let (chained, named) = (reference("Named"), schema);
    format!(
        "openapi: 3.0.3\ninfo: {{ title: A test, version: \"1\" }}\nservers: [{{ url: http://localhost }}]\npaths: {{ \
         /vm.set: {{ put: {{ requestBody: {{ {content} }}, responses: {{ 200: {{ description: Done, {content} }} }} }} }} \
         }}\ncomponents: {{ schemas: {{ Named: {named}, Chained: {chained} }} }}\n"
    )
}

/// The rules that were found between two schemas in one direction, and whether any of the findings is breaking.
type Found = (BTreeSet<String>, bool);

fn found(base: &str, revision: &str) -> [Found; 2] {
    let found = compare(base, revision);
    let unique: BTreeSet<_> = found
        .iter()
        .map(|finding| (finding.id, &finding.path, &finding.message))
        .collect();
    assert_eq!(unique.len(), found.len(), "{found:#?}");
    [Request, Response].map(|direction| {
        let of_direction = found
            .iter()
            .filter(|finding| finding.direction == direction);
        let ids = of_direction.clone().map(|finding| finding.id.to_owned());
        let breaks = of_direction
            .clone()
            .any(|finding| finding.level == Level::Breaking);
        (ids.collect(), breaks)
    })
}

/// Checks that these facts change from `old` to `new`, wherever the schema stands and however it is written. `breaks`
/// says whether the change breaks a request and a response.
#[track_caller]
fn check(old: &str, new: &str, facts: &[&str], breaks: [bool; 2]) {
    for (position, kind, before, after) in PLACES {
        let base = document(position, *before, old);
        let revision = document(position, *after, new);
        let expected = |direction: Direction, breaks| {
            let prefix = match direction {
                Request => "request",
                Response => "response",
            };
            let facts = facts.iter().map(|fact| match fact.strip_prefix("type-") {
                Some(action) => format!("{prefix}-{kind}-{action}"),
                None => format!("{prefix}-{fact}"),
            });
            (facts.collect::<BTreeSet<_>>(), breaks)
        };
        assert_eq!(
            found(&base, &revision),
            [expected(Request, breaks[0]), expected(Response, breaks[1])],
            "{old} to {new}, {before:?} to {after:?} in {position}"
        );
    }
}

/// Checks that nothing differs between the two schemas, in either direction.
#[track_caller]
fn check_same(one: &str, other: &str) {
    check(one, other, &[], [false, false]);
    check(other, one, &[], [false, false]);
}
