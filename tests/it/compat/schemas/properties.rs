//! `readOnly` and `writeOnly`.

use chv_sandbox::compat::Direction::{Request, Response};

use super::super::compare;
use super::Written::{Chained, Inline, Named};
use super::document;

/// The same as [`check`] for the property `a`, whose schema is `old` and then `new`. `required` says in which of the
/// two it is required. The first expectation is for the request, the second for the response.
#[track_caller]
fn check_property(
    old: Option<&str>,
    new: Option<&str>,
    required: [bool; 2],
    expected: [&[&str]; 2],
) {
    for written in [Inline, Named, Chained] {
        let side = |schema: Option<&str>, required: bool| {
            let required = match required {
                true => "required: [a], ",
                false => "",
            };
            match schema {
                None => document("{ type: object, properties: {} }", Inline, "{}"),
                Some(schema) => document(
                    &format!("{{ type: object, {required}properties: {{ a: SCHEMA }} }}"),
                    written,
                    schema,
                ),
            }
        };
        let found = compare(&side(old, required[0]), &side(new, required[1]));
        let of = |direction| -> Vec<String> {
            found
                .iter()
                .filter(|finding| finding.direction == direction)
                .map(|finding| format!("{:?} {}", finding.level, finding.id))
                .collect()
        };
        assert_eq!(
            [of(Request), of(Response)],
            expected.map(|lines| lines.iter().map(ToString::to_string).collect::<Vec<_>>()),
            "{old:?} to {new:?}, {written:?}"
        );
    }
}

#[test]
fn read_only_and_write_only_are_also_read_behind_a_name() {
    let (plain, read, write) = (
        "{ type: string }",
        "{ type: string, readOnly: true }",
        "{ type: string, writeOnly: true }",
    );
    check_property(
        Some(plain),
        Some(read),
        [false, false],
        [&["Breaking request-property-removed"], &[]],
    );
    check_property(
        Some(read),
        Some(plain),
        [false, false],
        [&["Info request-property-added"], &[]],
    );
    check_property(
        Some(read),
        Some(plain),
        [true, true],
        [&["Breaking request-required-property-added"], &[]],
    );
    check_property(
        Some(plain),
        Some(write),
        [false, false],
        [&[], &["Breaking response-property-removed"]],
    );
    check_property(
        Some(write),
        Some(plain),
        [false, false],
        [&[], &["Info response-property-added"]],
    );
    // A client need not send a new read-only property, required or not.
    check_property(
        None,
        Some(read),
        [false, true],
        [&[], &["Info response-property-added"]],
    );
    check_property(
        None,
        Some(write),
        [false, true],
        [&["Breaking request-required-property-added"], &[]],
    );
    check_property(
        Some(read),
        Some(read),
        [false, true],
        [&[], &["Info response-property-became-required"]],
    );
    check_property(
        Some(read),
        None,
        [true, false],
        [&[], &["Breaking response-property-removed"]],
    );
    check_property(
        Some(read),
        Some("{ type: integer, readOnly: true }"),
        [true, true],
        [&[], &["Breaking response-type-changed"]],
    );
    check_property(
        Some(read),
        Some(write),
        [false, false],
        [
            &["Info request-property-added"],
            &["Breaking response-property-removed"],
        ],
    );
}
