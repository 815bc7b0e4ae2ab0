//! Numbers as intervals: what a format and bounds allow.

use std::cmp::Ordering;

use serde_json::Number;

use crate::compat::rules::Action;
use crate::spec::{Schema, Shape};

/// The whole numbers that each known format of an integer can hold.
const INTEGERS: &[(&str, i128, i128)] = &[
    ("int8", i8::MIN as i128, i8::MAX as i128),
    ("int16", i16::MIN as i128, i16::MAX as i128),
    ("int32", i32::MIN as i128, i32::MAX as i128),
    ("int64", i64::MIN as i128, i64::MAX as i128),
    ("uint8", 0, u8::MAX as i128),
    ("uint16", 0, u16::MAX as i128),
    ("uint32", 0, u32::MAX as i128),
    ("uint64", 0, u64::MAX as i128),
];

/// Pairs of formats of which the first holds less than the second, where no interval says so.
const CONTAINED: &[(&str, &str)] = &[
    ("float", "double"),
    ("date", "date-time"),
    ("time", "date-time"),
];

/// The end of an interval: whole part, fraction, and whether it lies just beside that number. Ordered as numbers are.
type End = (i128, f64, i8);

/// The numbers that a schema allows; an absent end is open.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Interval {
    pub(super) low: Option<End>,
    pub(super) high: Option<End>,
}

impl Interval {
    /// What the format and the bounds of `schema` allow together.
    pub(super) fn of(schema: &Schema) -> Interval {
        let beside = |keyword, by| i8::from(schema.constraints.contains_key(keyword)) * by;
        let (whole, format, minimum, maximum) = match &schema.shape {
            Shape::Integer {
                format,
                minimum,
                maximum,
            } => (true, format, minimum, maximum),
            Shape::Number {
                format,
                minimum,
                maximum,
            } => (false, format, minimum, maximum),
            _ => return Interval::default(),
        };
        let end = |number: &Option<Number>, beside: i8, up: bool| {
            let (floor, fraction) = split(number.as_ref()?);
            Some(match (whole, up) {
                (false, _) => (floor, fraction, beside),
                (true, true) => (
                    floor.saturating_add(i128::from(fraction > 0.0 || beside > 0)),
                    0.0,
                    0,
                ),
                (true, false) => (
                    floor.saturating_sub(i128::from(fraction == 0.0 && beside < 0)),
                    0.0,
                    0,
                ),
            })
        };
        let held = match whole {
            true => of_format(format.as_deref()).unwrap_or_default(),
            false => Interval::default(),
        };
        Interval {
            low: tighter(
                held.low,
                end(minimum, beside("exclusiveMinimum", 1), true),
                Ordering::Greater,
            ),
            high: tighter(
                held.high,
                end(maximum, beside("exclusiveMaximum", -1), false),
                Ordering::Less,
            ),
        }
    }

    /// What became of the lower end.
    pub(super) fn low_change(&self, revision: &Interval) -> Option<Action> {
        match (self.low, revision.low) {
            (None, None) => None,
            (None, Some(_)) => Some(Action::Narrowed),
            (Some(_), None) => Some(Action::Widened),
            (Some(old), Some(new)) => moved(order(new, old)),
        }
    }

    /// What became of the upper end.
    pub(super) fn high_change(&self, revision: &Interval) -> Option<Action> {
        match (self.high, revision.high) {
            (None, None) => None,
            (None, Some(_)) => Some(Action::Narrowed),
            (Some(_), None) => Some(Action::Widened),
            (Some(old), Some(new)) => moved(order(old, new)),
        }
    }

    /// What became of the whole.
    fn change(&self, revision: &Interval) -> Option<Action> {
        match (self.low_change(revision), self.high_change(revision)) {
            (None, one) | (one, None) => one,
            (one, other) if one == other => one,
            _ => Some(Action::Changed),
        }
    }
}

/// What the change of a format means for the numbers or texts that are allowed, if there was one.
///
/// Formats of integers are judged together with the bounds: `int64` from 0 on holds less than `uint64`. Where the bounds
/// are so tight that both formats hold the same, the formats alone decide.
pub(super) fn format_change(base: &Schema, revision: &Schema) -> Option<Action> {
    let (old, new) = (format(base), format(revision));
    if old == new {
        return None;
    }
    if matches!(base.shape, Shape::Integer { .. })
        && let (Some(old), Some(new)) = (of_format(old), of_format(new))
    {
        return Interval::of(base)
            .change(&Interval::of(revision))
            .or_else(|| old.change(&new));
    }
    Some(match (old, new) {
        (None, _) => Action::Narrowed,
        (_, None) => Action::Widened,
        (Some(old), Some(new)) if CONTAINED.contains(&(old, new)) => Action::Widened,
        (Some(old), Some(new)) if CONTAINED.contains(&(new, old)) => Action::Narrowed,
        _ => Action::Changed,
    })
}

/// The format of a number or a text.
pub(super) fn format(schema: &Schema) -> Option<&str> {
    match &schema.shape {
        Shape::Integer { format, .. }
        | Shape::Number { format, .. }
        | Shape::String { format, .. } => format.as_deref(),
        _ => None,
    }
}

/// What an integer of this format can hold, if that is known. Without a format it can hold any.
fn of_format(format: Option<&str>) -> Option<Interval> {
    let Some(format) = format else {
        return Some(Interval::default());
    };
    INTEGERS
        .iter()
        .find(|(name, ..)| *name == format)
        .map(|(_, low, high)| Interval {
            low: Some((*low, 0.0, 0)),
            high: Some((*high, 0.0, 0)),
        })
}

/// The number as its floor and the rest.
fn split(number: &Number) -> (i128, f64) {
    if let Some(whole) = number.as_i128() {
        return (whole, 0.0);
    }
    let value = number.as_f64().unwrap_or_default();
    (value.floor() as i128, value - value.floor())
}

fn tighter(one: Option<End>, other: Option<End>, tighter: Ordering) -> Option<End> {
    match (one, other) {
        (Some(one), Some(other)) if order(one, other) == tighter => Some(one),
        (one, other) => other.or(one),
    }
}

fn order(one: End, other: End) -> Ordering {
    one.0
        .cmp(&other.0)
        .then(one.1.total_cmp(&other.1))
        .then(one.2.cmp(&other.2))
}

/// An end that moved inwards narrows.
fn moved(inwards: Ordering) -> Option<Action> {
    match inwards {
        Ordering::Equal => None,
        Ordering::Greater => Some(Action::Narrowed),
        Ordering::Less => Some(Action::Widened),
    }
}
