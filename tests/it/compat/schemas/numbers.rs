//! Formats, bounds, multiples and values are compared as exact numbers.

use super::{check, check_same};

#[test]
fn a_format_hides_no_bound() {
    check(
        "{ type: number, format: float, maximum: 100 }",
        "{ type: number, format: double, maximum: 10 }",
        &["format-widened", "maximum-narrowed"],
        [true, true],
    );
    check(
        "{ type: number, format: double, minimum: 5 }",
        "{ type: number, format: float, minimum: 1 }",
        &["format-narrowed", "minimum-widened"],
        [true, true],
    );
    check(
        "{ type: number, maximum: 1 }",
        "{ type: number, format: float, maximum: 2.5 }",
        &["format-narrowed", "maximum-widened"],
        [true, true],
    );
    check(
        "{ type: integer, format: port, maximum: 100 }",
        "{ type: integer, maximum: 10 }",
        &["format-widened", "maximum-narrowed"],
        [true, true],
    );
    check(
        "{ type: integer, maximum: 10 }",
        "{ type: integer, format: port, maximum: 100 }",
        &["format-narrowed", "maximum-widened"],
        [true, true],
    );
    check(
        "{ type: integer, format: port, minimum: 1 }",
        "{ type: integer, format: socket, minimum: 2 }",
        &["format-changed", "minimum-narrowed"],
        [true, true],
    );
    // The two ends are judged separately: one is given by the format, the other by the bound.
    check(
        "{ type: integer, format: int32, maximum: 100 }",
        "{ type: integer, format: int64, maximum: 10 }",
        &["format-widened", "maximum-narrowed"],
        [true, true],
    );
    check(
        "{ type: integer, format: uint128 }",
        "{ type: integer, format: uint64 }",
        &["format-narrowed"],
        [true, false],
    );
    check(
        "{ type: string, format: date, maxLength: 30 }",
        "{ type: string, format: date-time, maxLength: 20, nullable: true }",
        &["format-widened", "constraint-narrowed", "null-added"],
        [true, true],
    );
}

#[test]
fn multiples_are_divided_exactly() {
    let number = |step: &str| format!("{{ type: number, multipleOf: {step} }}");
    let widens = |old: &str, new: &str| {
        let (old, new) = (number(old), number(new));
        check(&old, &new, &["constraint-widened"], [false, true]);
        check(&new, &old, &["constraint-narrowed"], [true, false]);
    };
    widens("0.1", "0.01");
    widens("0.3", "0.1");
    widens("0.5", "1e-3");
    widens("3", "1.5");
    widens("1e300", "1e-300");
    widens("1.1", "0.11");
    check_same(&number("1"), &number("1.0"));
    check_same(&number("100"), &number("1e2"));
    check_same(&number("0.10"), &number("1e-1"));
    for (old, new) in [("0.3", "0.2"), ("1e-3", "0.0015"), ("7", "1e200")] {
        check(
            &number(old),
            &number(new),
            &["constraint-changed"],
            [true, true],
        );
    }
    // A multiple of 0 is not allowed in a document, and is read as no restriction.
    check(
        &number("0"),
        &number("2"),
        &["constraint-narrowed"],
        [true, false],
    );
    // Among the integers, the multiples of 3/2 are those of 3, and every integer is a multiple of 1/2.
    check_same(
        "{ type: integer, multipleOf: 1.5 }",
        "{ type: integer, multipleOf: 3 }",
    );
    check_same("{ type: integer, multipleOf: 0.5 }", "{ type: integer }");
    check(
        "{ type: integer }",
        "{ type: number, multipleOf: 1.5 }",
        &["type-widened", "constraint-narrowed"],
        [true, true],
    );
}

#[test]
fn numbers_are_compared_by_what_they_are() {
    check_same(
        "{ type: number, enum: [1, 2] }",
        "{ type: number, enum: [2.0, 1e0] }",
    );
    check_same(
        "{ type: number, minimum: 1, maximum: 100 }",
        "{ type: number, minimum: 1.0, maximum: 1e2 }",
    );
    check_same(
        "{ type: integer, maximum: 10 }",
        "{ type: integer, maximum: 10.5 }",
    );
    check_same(
        "{ type: integer, minimum: 1 }",
        "{ type: integer, minimum: 0.5, exclusiveMinimum: true }",
    );
    check_same(
        "{ type: string, maxLength: 10 }",
        "{ type: string, maxLength: 10.0 }",
    );
    check_same("{ type: string, minLength: 0 }", "{ type: string }");
    check_same("{ maxLength: 10 }", "{ maxLength: 1e1 }");
    check_same("{ uniqueItems: false }", "{}");
    check_same(
        "{ type: array, items: {}, default: [1, { a: [2, 0] }] }",
        "{ type: array, items: {}, default: [1.0, { a: [2e0, -0.0] }] }",
    );
    check_same(
        "{ enum: [[1, { a: 2 }], { b: 3 }] }",
        "{ enum: [{ b: 3.0 }, [1.0, { a: 2.0 }]] }",
    );
    check(
        "{ type: number, enum: [1, 2] }",
        "{ type: number, enum: [1.0, 2.5] }",
        &["enum-value-removed", "enum-value-added"],
        [true, false],
    );
    check(
        "{ enum: [[1], [2]] }",
        "{ enum: [[1.0], [3]] }",
        &["enum-value-removed", "enum-value-added"],
        [true, false],
    );
    check(
        "{ type: number, maximum: 0.3 }",
        "{ type: number, maximum: 0.30000000000000004 }",
        &["maximum-widened"],
        [false, true],
    );
    check(
        "{ minimum: 1 }",
        "{ minimum: 1, exclusiveMinimum: true }",
        &["minimum-narrowed"],
        [true, false],
    );
    check(
        "{ type: object, default: { a: 1 } }",
        "{ type: object, default: { a: 1.5 } }",
        &["default-changed"],
        [false, false],
    );
}
