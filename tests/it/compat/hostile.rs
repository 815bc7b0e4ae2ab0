//! The comparison ends for documents whose references form circles or chains of the greatest length.

use std::time::{Duration, Instant};

use chv_sandbox::compat::Level;

use super::{compare, lines};

/// The longest time that a document of the largest size may take.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn hostile_documents_come_to_an_end() {
    fn named(schemas: impl Iterator<Item = String>) -> String {
        let schemas: String = schemas.collect();
        format!(
            "openapi: 3.0.3\ninfo: {{ title: A test, version: \"1\" }}\nservers: [{{ url: http://localhost }}]\npaths:\n  \
             /vm: {{ put: {{ responses: {{ 200: {{ description: Done, content: {{ application/json: {{ schema: {{ $ref: \
             \"#/components/schemas/N0\" }} }} }} }} }} }} }}\ncomponents:\n  schemas:\n{schemas}"
        )
    }
    /// Objects that refer to each other in a circle.
    fn circle(length: usize, leaf: &str) -> String {
        named((0..length).map(|at| {
            let next = (at + 1) % length;
            let leaf = match at {
                0 => leaf,
                _ => "string",
            };
            format!(
                "    N{at}: {{ type: object, properties: {{ l: {{ type: {leaf} }}, n: {{ $ref: \
                 \"#/components/schemas/N{next}\" }} }} }}\n"
            )
        }))
    }
    let started = Instant::now();
    // Two circles of different lengths: followed pair by pair, no pair of names repeats until both circles have been
    // passed completely.
    let found = compare(&circle(397, "string"), &circle(401, "string"));
    assert!(found.iter().all(|found| found.level == Level::Breaking));
    let found = compare(&circle(1000, "string"), &circle(1000, "boolean"));
    assert_eq!(
        lines(&found),
        ["Breaking response-type-changed /components/schemas/N0/properties/l [vm]"]
    );
    // A chain of schemas, each of which is a reference to the next.
    let chain = |length: usize| {
        named((0..=length).map(|at| match at == length {
            true => format!("    N{at}: {{ type: string }}\n"),
            false => format!(
                "    N{at}: {{ $ref: \"#/components/schemas/N{}\" }}\n",
                at + 1
            ),
        }))
    };
    assert_eq!(compare(&chain(5_000), &chain(4_999)), []);
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
}

#[test]
fn a_change_inside_a_tree_is_found_once() {
    let tree = |leaf: &str| {
        format!(
            "openapi: 3.0.3\ninfo: {{ title: A test, version: \"1\" }}\nservers: [{{ url: http://localhost }}]\npaths:\n  \
             /vm: {{ put: {{ requestBody: {{ content: {{ application/json: {{ schema: {{ $ref: \
             \"#/components/schemas/Tree\" }} }} }} }}, responses: {{ 204: {{ description: Done }} }} }} }}\ncomponents:\n  \
             schemas:\n    Tree: {{ type: object, properties: {{ leaf: {{ type: {leaf} }}, branches: {{ type: array, items: \
             {{ $ref: \"#/components/schemas/Tree\" }} }} }} }}\n"
        )
    };
    assert_eq!(
        lines(&compare(&tree("string"), &tree("integer"))),
        ["Breaking request-type-changed /components/schemas/Tree/properties/leaf [vm]"]
    );
    assert_eq!(compare(&tree("string"), &tree("string")), []);
}
