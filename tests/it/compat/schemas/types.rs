//! A change of the type is reported, and so are the other changes beside it.

use chv_sandbox::compat::Direction::Request;

use super::super::compare;
use super::Written::Inline;
use super::{check, check_same, document};

#[test]
fn a_wider_type_hides_nothing() {
    check(
        "{ type: integer, maximum: 4096, nullable: true }",
        "{ type: number, maximum: 16 }",
        &["type-widened", "maximum-narrowed", "null-removed"],
        [true, true],
    );
    check(
        "{ type: integer, minimum: 8 }",
        "{ type: number, minimum: 1, nullable: true }",
        &["type-widened", "minimum-widened", "null-added"],
        [false, true],
    );
    check(
        "{ type: integer, enum: [1, 2], default: 1 }",
        "{ type: number, enum: [2, 2.5], default: 2 }",
        &[
            "type-widened",
            "enum-value-removed",
            "enum-value-added",
            "default-changed",
        ],
        [true, true],
    );
    check(
        "{ type: integer }",
        "{ type: number, enum: [1, 1.5] }",
        &["type-widened", "enum-added"],
        [true, true],
    );
    check(
        "{ type: integer, multipleOf: 4 }",
        "{ type: number, multipleOf: 2.5 }",
        &["type-widened", "constraint-changed"],
        [true, true],
    );
    check(
        "{ type: integer, default: 1, deprecated: true }",
        "{ type: number }",
        &["type-widened", "default-removed", "deprecation-removed"],
        [false, true],
    );
}

#[test]
fn a_narrower_type_hides_nothing() {
    check(
        "{ type: number, maximum: 10 }",
        "{ type: integer, maximum: 20, nullable: true }",
        &["type-narrowed", "maximum-widened", "null-added"],
        [true, true],
    );
    check(
        "{ type: number, multipleOf: 5 }",
        "{ type: integer }",
        // Every multiple of 5 is an integer, so the type is not wider; only the multiple was removed.
        &["constraint-widened"],
        [false, true],
    );
    check(
        "{ type: number, default: 1, nullable: true }",
        "{ type: integer, default: 1.0 }",
        &["type-narrowed", "null-removed"],
        [true, false],
    );
    check(
        "{ maximum: 10 }",
        "{ type: integer, maximum: 20 }",
        &["type-narrowed", "maximum-widened"],
        [true, true],
    );
    check(
        "{ maxLength: 5, pattern: a }",
        "{ type: string, default: b }",
        &[
            "type-narrowed",
            "constraint-widened",
            "pattern-removed",
            "default-added",
        ],
        [true, true],
    );
    check(
        "{ enum: [1, a] }",
        "{ type: string, nullable: true }",
        &["type-narrowed", "enum-removed", "null-added"],
        [true, true],
    );
}

#[test]
fn a_type_that_goes_hides_nothing() {
    check(
        "{ type: integer, maximum: 4096 }",
        "{ maximum: 16 }",
        &["type-widened", "maximum-narrowed"],
        [true, true],
    );
    check(
        "{ type: string, minLength: 2 }",
        "{ minLength: 4, default: abcd }",
        &["type-widened", "constraint-narrowed", "default-added"],
        [true, true],
    );
    check(
        "{ type: string }",
        "{ pattern: a }",
        &["type-widened", "pattern-added"],
        [true, true],
    );
    check(
        "{ type: integer, format: int64 }",
        "{ format: int32 }",
        &["type-widened", "format-narrowed"],
        [true, true],
    );
    check(
        "{ type: string, enum: [a, b] }",
        "{ enum: [a, 1] }",
        &["type-widened", "enum-value-removed", "enum-value-added"],
        [true, true],
    );
    check(
        "{ type: string, enum: [a], nullable: true }",
        "{ enum: [a, 1] }",
        &["type-widened", "enum-value-added", "null-removed"],
        [true, true],
    );
    check(
        "{ type: integer }",
        "{ enum: [1, auto] }",
        &["type-widened", "enum-added"],
        [true, true],
    );
    check(
        "{ type: object }",
        "{ maxProperties: 2 }",
        &["type-widened", "constraint-narrowed"],
        [true, true],
    );
    check(
        "{ enum: [1, 2] }",
        "{ enum: [1, 2, a] }",
        &["type-widened", "enum-value-added"],
        [false, true],
    );
}

#[test]
fn facts_that_are_part_of_the_type_are_not_reported_again() {
    check(
        "{ type: integer, format: int64, minimum: 1, multipleOf: 2 }",
        "{}",
        &["type-widened"],
        [false, true],
    );
    check(
        "{}",
        "{ type: string, enum: [a], format: uuid, pattern: a, maxLength: 9 }",
        &["type-narrowed"],
        [true, false],
    );
    check(
        "{ type: string, nullable: true }",
        "{}",
        &["type-widened"],
        [false, true],
    );
    check(
        "{}",
        "{ type: array, items: { type: string } }",
        &["type-narrowed"],
        [true, false],
    );
    check(
        "{ type: object, additionalProperties: { type: string } }",
        "{}",
        &["type-widened"],
        [false, true],
    );
    // A restriction of values of another type is not part of this type.
    check(
        "{ type: integer }",
        "{ maxLength: 3, format: double, minItems: 2 }",
        &["type-widened"],
        [false, true],
    );
    check(
        "{ type: integer, format: int32 }",
        "{ type: number, format: float }",
        &["type-widened"],
        [false, true],
    );
    check("{}", "{ enum: [1, a] }", &["enum-added"], [true, false]);
}

#[test]
fn a_type_is_told_by_the_values_too() {
    check_same("{ type: integer, enum: [1, 2] }", "{ enum: [2, 1] }");
    check_same(
        "{ type: string, enum: [a], nullable: true }",
        "{ enum: [a, null] }",
    );
    check_same("{ type: boolean }", "{ enum: [true, false] }");
    check_same("{ type: integer }", "{ type: number, multipleOf: 1 }");
    check(
        "{ type: integer, maximum: 10, format: int32 }",
        "{ enum: [1, 2] }",
        &["enum-added"],
        [true, false],
    );
    check(
        "{ type: integer, maximum: 10 }",
        "{ type: integer, enum: [1, 20] }",
        &["enum-added", "maximum-widened"],
        [true, true],
    );
    check(
        "{ type: integer, enum: [1, 2] }",
        "{ type: integer, enum: [1, 2], maximum: 10, multipleOf: 1 }",
        &[],
        [false, false],
    );
    check(
        "{ type: boolean }",
        "{ type: boolean, enum: [true] }",
        &["enum-added"],
        [true, false],
    );
    check(
        "{ type: number }",
        "{ enum: [1, a] }",
        &["type-changed"],
        [true, true],
    );
}

#[test]
fn an_object_that_takes_no_others_is_no_map() {
    check(
        "{ type: object, additionalProperties: false }",
        "{ type: object, additionalProperties: { type: string } }",
        &["constraint-widened"],
        [false, true],
    );
}

#[test]
fn each_removed_value_is_reported() {
    let base = document("SCHEMA", Inline, "{ type: string, enum: [a, b, c] }");
    let revision = document("SCHEMA", Inline, "{ type: string, enum: [c, d] }");
    let messages: Vec<String> = compare(&base, &revision)
        .into_iter()
        .filter(|finding| finding.direction == Request)
        .map(|finding| finding.message)
        .collect();
    assert_eq!(
        messages,
        [
            "`vm.set request` has no value `a` any more",
            "`vm.set request` has no value `b` any more",
            "`vm.set request` has a new value: `d`",
        ]
    );
}
