//! Documents that are not like upstream's: everything of OpenAPI 3.0 that the comparison needs is read, and judged by
//! the same rules.

use super::{compare, lines, parse};

/// A document whose one endpoint takes `schema` and answers with it.
fn document(schema: &str) -> String {
    endpoint(&format!(
        "requestBody: {{ content: {{ application/json: {{ schema: {schema} }} }} }}, responses: {{ 200: {{ \
         description: Done, content: {{ application/json: {{ schema: {schema} }} }} }} }}"
    ))
}

/// A document whose one endpoint is `endpoint`.
fn endpoint(endpoint: &str) -> String {
    paths(&format!("/vm.set: {{ put: {{ {endpoint} }} }}"))
}

fn paths(paths: &str) -> String {
    format!(
        "openapi: 3.0.3\ninfo: {{ title: A test, version: \"1\" }}\nservers: [{{ url: http://localhost }}]\n\
         paths: {{ {paths} }}\ncomponents:\n  schemas:\n    Used: {{ type: object, properties: {{ x: {{ type: integer }} \
         }} }}\n  responses:\n    Busy: {{ description: Busy, content: {{ \
         application/json: {{ schema: {{ type: string }} }} }} }}\n  requestBodies:\n    Set: {{ required: true, \
         content: {{ application/json: {{ schema: {{ type: string }} }} }} }}\n"
    )
}

/// Checks which rules a change of a body's schema triggers, in the request and in the response, at `below`.
fn check_at(base: &str, revision: &str, below: &str, expected: [&str; 2]) {
    let found = compare(&document(base), &document(revision));
    let [request, response] = expected;
    let (body, answer) = (
        "/paths/~1vm.set/put/requestBody/content/application~1json/schema",
        "/paths/~1vm.set/put/responses/200/content/application~1json/schema",
    );
    let mut expected = vec![
        format!("{request} {body}{below} [vm.set]"),
        format!("{response} {answer}{below} [vm.set]"),
    ];
    expected.retain(|line| !line.starts_with(' '));
    let mut found = lines(&found);
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{base} to {revision}");
}

fn check(base: &str, revision: &str, expected: [&str; 2]) {
    check_at(base, revision, "", expected);
}

const NOTHING: [&str; 2] = ["", ""];

#[test]
fn formats_and_bounds_are_judged_by_the_numbers_that_they_allow() {
    let narrowed = [
        "Breaking request-format-narrowed",
        "Info response-format-narrowed",
    ];
    let widened = [
        "Info request-format-widened",
        "Breaking response-format-widened",
    ];
    let changed = [
        "Breaking request-format-changed",
        "Breaking response-format-changed",
    ];
    let integer = |rest: &str| format!("{{ type: integer{rest} }}");
    let check_format =
        |old: &str, new: &str, expected| check(&integer(old), &integer(new), expected);
    check_format(", format: int64", ", format: int32", narrowed);
    check_format(", format: uint8", ", format: uint16", widened);
    check_format(", format: uint8", ", format: int16", widened);
    check_format(", format: int64", ", format: uint64", changed);
    check_format(", format: int64", "", widened);
    check_format("", ", format: int64", narrowed);
    check_format(", format: int64", ", format: odd", changed);
    // For numbers that are not negative, every `int64` is a `uint64`.
    check_format(", format: int64, minimum: 0", ", format: uint64", widened);
    // Within these bounds both formats allow the same numbers; the change of the format is still reported.
    check_format(
        ", format: int64, minimum: 1, maximum: 9",
        ", format: int32, minimum: 1, maximum: 9",
        narrowed,
    );
    check_format(
        ", format: uint8",
        ", format: uint8, minimum: 0, maximum: 255",
        NOTHING,
    );
    check_format(
        ", minimum: 1",
        ", exclusiveMinimum: true, minimum: 0",
        NOTHING,
    );
    check_format(
        ", minimum: 1",
        ", minimum: 1, exclusiveMinimum: true",
        [
            "Breaking request-minimum-narrowed",
            "Info response-minimum-narrowed",
        ],
    );
    check_format(
        ", maximum: 18446744073709551614",
        ", maximum: 18446744073709551615",
        [
            "Info request-maximum-widened",
            "Breaking response-maximum-widened",
        ],
    );
    let number = |rest: &str| format!("{{ type: number{rest} }}");
    check(
        &number(", format: float"),
        &number(", format: double"),
        widened,
    );
    check(
        &number(", maximum: 0.5"),
        &number(", maximum: 0.5, exclusiveMaximum: true"),
        [
            "Breaking request-maximum-narrowed",
            "Info response-maximum-narrowed",
        ],
    );
    let text = |rest: &str| format!("{{ type: string{rest} }}");
    check(
        &text(", format: date"),
        &text(", format: date-time"),
        widened,
    );
    check(&text(", format: uuid"), &text(", format: uri"), changed);
    check(&text(""), &text(", format: uuid"), narrowed);
}

#[test]
fn a_change_of_the_type_is_one_change() {
    let changed = [
        "Breaking request-type-changed",
        "Breaking response-type-changed",
    ];
    check(
        "{ type: integer, format: int64, default: 1, minimum: 1 }",
        "{ type: string, enum: [a], default: a, nullable: true }",
        changed,
    );
    check("{ type: object }", "{ type: array, items: {} }", changed);
    check(
        "{ type: object, properties: { a: {} } }",
        "{ type: object, additionalProperties: { type: string } }",
        changed,
    );
    check(
        "{ type: string }",
        "{}",
        [
            "Info request-type-widened",
            "Breaking response-type-widened",
        ],
    );
    check(
        "{ nullable: true }",
        "{ type: string }",
        [
            "Breaking request-type-narrowed",
            "Info response-type-narrowed",
        ],
    );
    // An object schema without properties allows any keys and values.
    check(
        "{ type: object }",
        "{ type: object, additionalProperties: true }",
        NOTHING,
    );
    check(
        "{ type: object }",
        "{ type: object, additionalProperties: {} }",
        NOTHING,
    );
    check_at(
        "{ type: object }",
        "{ type: object, additionalProperties: { type: string } }",
        "/additionalProperties",
        [
            "Breaking request-map-values-narrowed",
            "Info response-map-values-narrowed",
        ],
    );
}

#[test]
fn keywords_of_another_type_say_nothing() {
    check(
        "{ type: string }",
        "{ type: string, minimum: 1, items: {}, required: [a] }",
        NOTHING,
    );
    check(
        "{ type: integer, minimum: 1, format: int64 }",
        "{ minimum: 1, format: int64 }",
        [
            "Info request-type-widened",
            "Breaking response-type-widened",
        ],
    );
    check(
        "{ minimum: 1 }",
        "{ minimum: 2 }",
        [
            "Breaking request-minimum-narrowed",
            "Info response-minimum-narrowed",
        ],
    );
}

#[test]
fn types_may_be_implied() {
    check(
        "{ type: object, required: [a], properties: { a: { type: string } } }",
        "{ required: [a], properties: { a: { type: string } } }",
        NOTHING,
    );
    check("{ type: array, items: {} }", "{ items: {} }", NOTHING);
    check(
        "{ type: string, enum: [a, b] }",
        "{ enum: [b, a] }",
        NOTHING,
    );
    check(
        "{ type: string, nullable: true, enum: [a, null] }",
        "{ type: string, nullable: true, enum: [a] }",
        NOTHING,
    );
    check(
        "{ type: integer, enum: [2, 1] }",
        "{ type: integer, enum: [1, 2, 4] }",
        [
            "Info request-enum-value-added",
            "Warning response-enum-value-added",
        ],
    );
}

#[test]
fn further_restrictions_are_judged_by_what_they_allow() {
    let narrowed = [
        "Breaking request-constraint-narrowed",
        "Info response-constraint-narrowed",
    ];
    let widened = [
        "Info request-constraint-widened",
        "Breaking response-constraint-widened",
    ];
    let list = |rest: &str| format!("{{ type: array, items: {{}}{rest} }}");
    check(&list(""), &list(", minItems: 1"), narrowed);
    check(&list(", minItems: 2"), &list(", minItems: 1"), widened);
    check(&list(", maxItems: 2"), &list(", maxItems: 1"), narrowed);
    check(
        &list(", uniqueItems: true"),
        &list(", uniqueItems: false"),
        widened,
    );
    check(
        "{ type: integer, multipleOf: 4 }",
        "{ type: integer, multipleOf: 2 }",
        widened,
    );
    check(
        "{ type: object, properties: { a: {} } }",
        "{ type: object, properties: { a: {} }, additionalProperties: false }",
        narrowed,
    );
}

#[test]
fn read_only_and_write_only_properties_exist_in_one_direction() {
    let of = |a: &str| format!("{{ type: object, properties: {{ a: {{ type: {a} }} }} }}");
    check_at(
        &of("string, readOnly: true"),
        &of("integer, readOnly: true"),
        "/properties/a",
        ["", "Breaking response-type-changed"],
    );
    check_at(
        &of("string"),
        &of("string, readOnly: true"),
        "/properties/a",
        ["Breaking request-property-removed", ""],
    );
    check_at(
        &of("string"),
        &of("string, writeOnly: true"),
        "/properties/a",
        ["", "Breaking response-property-removed"],
    );
}

#[test]
fn a_required_name_without_a_property_is_a_promise_too() {
    check_at(
        "{ type: object }",
        "{ type: object, required: [tag] }",
        "/required",
        [
            "Breaking request-property-became-required",
            "Info response-property-became-required",
        ],
    );
}

#[test]
fn a_change_is_at_the_place_where_it_is_written() {
    let used = "{ $ref: \"#/components/schemas/Used\" }";
    // The schema has a name on one side and is written out on the other: a removed property is placed in the base, and
    // an added one in the revision.
    let found = compare(
        &endpoint(&format!(
            "responses: {{ 200: {{ description: Done, content: {{ application/json: {{ schema: {used} }} }} }} }}"
        )),
        &endpoint(
            "responses: { 200: { description: Done, content: { application/json: { schema: { type: object, \
             properties: { y: { type: boolean } } } } } } }",
        ),
    );
    assert_eq!(
        lines(&found),
        [
            "Breaking response-property-removed /components/schemas/Used/properties/x [vm.set]",
            "Info response-property-added \
             /paths/~1vm.set/put/responses/200/content/application~1json/schema/properties/y [vm.set]",
        ]
    );
    assert!(
        found[0].message.starts_with("`vm.set 200.x` is gone"),
        "{}",
        found[0].message
    );
    // A reference on one side only: the change of the type is placed where the reference stands.
    check(
        used,
        "{ type: string }",
        [
            "Breaking request-type-changed",
            "Breaking response-type-changed",
        ],
    );
}

#[test]
fn operations_of_one_path_are_told_apart() {
    let both = |kind: &str| {
        let operation = format!(
            "responses: {{ 200: {{ description: Done, content: {{ application/json: {{ schema: {{ type: {kind} }} }} }} \
             }} }}"
        );
        paths(&format!(
            "/vm: {{ get: {{ {operation} }}, put: {{ {operation} }} }}"
        ))
    };
    let schema = "responses/200/content/application~1json/schema";
    assert_eq!(
        lines(&compare(&both("string"), &both("integer"))),
        [
            format!("Breaking response-type-changed /paths/~1vm/get/{schema} [GET vm]"),
            format!("Breaking response-type-changed /paths/~1vm/put/{schema} [PUT vm]"),
        ]
    );
}

#[test]
fn statuses_by_class_and_shared_responses_and_bodies_are_read() {
    let plain = endpoint("responses: { 204: { description: Done } }");
    let more = endpoint(
        "deprecated: true, requestBody: { $ref: \"#/components/requestBodies/Set\" }, responses: { 204: { description: \
         Done }, 4XX: { description: No }, 2XX: { description: Yes }, default: { $ref: \
         \"#/components/responses/Busy\" }, x-more: 1 }",
    );
    let place = "/paths/~1vm.set/put";
    assert_eq!(
        lines(&compare(&plain, &more)),
        [
            format!("Breaking request-required-body-added {place}/requestBody [vm.set]"),
            format!("Info request-deprecation-added {place} [vm.set]"),
            format!("Info success-status-added {place}/responses/2XX [vm.set]"),
            format!("Info error-status-added {place}/responses/4XX [vm.set]"),
            format!("Info error-status-added {place}/responses/default [vm.set]"),
        ]
    );
    // The body is judged in the same way wherever it is written.
    let inline = more.replace(
        "default: { $ref: \"#/components/responses/Busy\" }",
        "default: { description: Busy, content: { application/json: { schema: { type: string } } } }",
    );
    assert_ne!(inline, more);
    assert_eq!(compare(&more, &inline), []);
}

#[test]
fn a_construct_that_cannot_be_judged_is_refused_with_its_place() {
    fn check(document: &str, expected: &str) {
        let error = parse(document).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let source = source.unwrap_or_default();
        assert!(source.contains(expected), "{source}");
    }
    let place = "at /paths/~1vm.set/put";
    for keyword in ["allOf", "anyOf", "oneOf"] {
        check(
            &document(&format!(
                "{{ {keyword}: [{{ type: string }}, {{ minLength: 1 }}] }}"
            )),
            &format!("{place}/requestBody/content/application~1json/schema: keyword `{keyword}`"),
        );
    }
    check(
        &document(
            "{ type: object, properties: { a: {} }, additionalProperties: { type: string } }",
        ),
        "`additionalProperties` cannot be combined with `properties`",
    );
    check(
        &endpoint("responses: {}, parameters: []"),
        &format!("{place}: keyword `parameters`"),
    );
    check(
        &endpoint("responses: { 200: { $ref: \"#/components/responses/Gone\" } }"),
        "`#/components/responses/Gone` leads to no",
    );
    check(
        &endpoint("responses: { 4xx: { description: No } }"),
        "expected an HTTP status",
    );
}
