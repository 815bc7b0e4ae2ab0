//! Compares formats and bounds: which numbers a schema allows.

use std::cmp::Ordering;

use num_rational::BigRational;
use serde_json::{Number, Value};

use super::fraction::{exact, exact_value, whole};
use super::sides::{Side, Sides};
use super::types::Types;
use crate::compat::rules::{Action, Area};
use crate::spec::{Schema, Shape};

/// Pairs of formats without a numeric range, in which the first format allows less than the second.
const CONTAINED: &[(&str, &str)] = &[
    ("float", "double"),
    ("date", "date-time"),
    ("time", "date-time"),
];

/// Compares formats and bounds. A format is judged together with the bounds: for example, an `int64` with a minimum of
/// 0 allows only values that a `uint64` allows.
pub(super) fn compare(
    sides: &Sides<'_>,
    name: &str,
    find: &mut impl FnMut((Area, Action), String),
) {
    let (old, new) = (format(&sides.old, sides), format(&sides.new, sides));
    let moves = [Edge::Low, Edge::High].map(|edge| Move::of(edge, sides, [old, new]));
    if old != new
        && let Some(action) = format_change(sides, [old, new], &moves)
    {
        let say =
            |format: Option<&str>| format.map_or("none".to_owned(), |format| format!("`{format}`"));
        let (old, new) = (say(old), say(new));
        find(
            (Area::Format, action),
            format!("the format of `{name}` is {new} now, and was {old}"),
        );
    }
    for Move {
        edge,
        action,
        cause,
    } in moves.into_iter().flatten()
    {
        let [old, new] = [&sides.old, &sides.new].map(|side| edge.bound(side.schema));
        if cause == Cause::Format || sides.goes_with_type(old.is_some(), new.is_some()) {
            continue;
        }
        let say = |bound: Option<(&Number, bool)>| match bound {
            None => "none".to_owned(),
            Some((number, true)) => format!("{number} (exclusive)"),
            Some((number, false)) => number.to_string(),
        };
        let (keyword, _, area) = edge.keywords();
        let (old, new) = (say(old), say(new));
        find(
            (area, action),
            format!("the {keyword} of `{name}` is {new} now, and was {old}"),
        );
    }
}

/// Returns the effect of a changed format on the values that are allowed.
fn format_change(
    sides: &Sides<'_>,
    [old, new]: [Option<&str>; 2],
    moves: &[Option<Move>; 2],
) -> Option<Action> {
    let both = old.is_some() && new.is_some();
    let action = match (range(old), range(new)) {
        (Some(then), Some(now)) => {
            let of_format = moves
                .iter()
                .flatten()
                .filter(|moved| moved.cause == Cause::Format);
            let of_format = together(of_format.map(|moved| moved.action));
            let listed = sides.old.listed.is_some() || sides.new.listed.is_some();
            match of_format {
                Some(action) => action,
                // If the format came or went together with the type, or if the values are listed, only a change of the
                // allowed values counts.
                None if !both && (listed || sides.type_change.is_some()) => return None,
                // The bounds are tighter than both formats, so the allowed values are the same. A changed format is
                // reported all the same.
                None => {
                    let moved = moves.iter().flatten().map(|moved| moved.action);
                    let ranges = [Edge::Low, Edge::High].map(|edge| {
                        let (then, now) = (edge.end_of(&then), edge.end_of(&now));
                        edge.change(then.as_ref(), now.as_ref())
                    });
                    together(moved).or_else(|| together(ranges.into_iter().flatten()))?
                }
            }
        }
        _ => match (old, new) {
            (None, _) => Action::Narrowed,
            (_, None) => Action::Widened,
            (Some(old), Some(new)) if CONTAINED.contains(&(old, new)) => Action::Widened,
            (Some(old), Some(new)) if CONTAINED.contains(&(new, old)) => Action::Narrowed,
            _ => Action::Changed,
        },
    };
    // A format that came or went together with the type is a part of that change, and is not reported again.
    (both || Some(action) != sides.type_change).then_some(action)
}

/// Combines several changes into one.
fn together(actions: impl Iterator<Item = Action>) -> Option<Action> {
    actions.reduce(|one, other| match one == other {
        true => one,
        false => Action::Changed,
    })
}

/// Returns the format of one side, if it applies to the types that both sides allow.
fn format<'s>(side: &Side<'s>, sides: &Sides<'s>) -> Option<&'s str> {
    let shared = sides.shared;
    let kinds = [&sides.old, &sides.new].map(|side| side.schema.shape.kind());
    let of_fractions = |format: &str| matches!(format, "float" | "double");
    match &side.schema.shape {
        // If only whole numbers are compared, the precision of fractions does not matter.
        Shape::Number { format, .. } if kinds[0] != kinds[1] && !shared.meets(Types::FRACTION) => {
            format
                .as_deref()
                .filter(|format| range(Some(format)).is_some())
        }
        Shape::Integer { format, .. }
        | Shape::Number { format, .. }
        | Shape::String { format, .. } => format.as_deref(),
        Shape::Any => {
            let format = side.schema.constraints.get("format")?.as_str()?;
            let applies_to = match format {
                format if of_fractions(format) => Types::FRACTION,
                format if range(Some(format)).is_some() => Types::NUMBER,
                _ => Types::NUMBER | Types::STRING,
            };
            shared.meets(applies_to).then_some(format)
        }
        _ => None,
    }
}

/// The least and the greatest whole number of a format. `None` if it has no such limits.
type Range = Option<[BigRational; 2]>;

/// Returns the range of a format. `None` if it is not known. Without a format there are no limits.
fn range(format: Option<&str>) -> Option<Range> {
    let Some(format) = format else {
        return Some(None);
    };
    let (signed, width) = match format.strip_prefix("uint") {
        Some(width) => (false, width),
        None => (true, format.strip_prefix("int")?),
    };
    let beyond = match width {
        "8" => 120,
        "16" => 112,
        "32" => 96,
        "64" => 64,
        "128" => 0,
        _ => return None,
    };
    Some(Some(match signed {
        true => [whole(i128::MIN >> beyond), whole(i128::MAX >> beyond)],
        false => [
            whole(0),
            BigRational::from_integer((u128::MAX >> beyond).into()),
        ],
    }))
}

/// One of the two ends of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    Low,
    High,
}

/// One end of the numbers that a schema allows.
#[derive(Debug)]
struct End {
    number: BigRational,
    /// Whether the number itself is excluded: 1 if the end lies just above it, -1 if it lies just below it, 0 if the
    /// number is allowed.
    beside: i8,
    cause: Cause,
}

/// The keyword that sets an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Format,
    Bound,
}

/// A changed end.
#[derive(Debug)]
struct Move {
    edge: Edge,
    action: Action,
    /// If the end moved inwards, the cause of the new end. If it moved outwards, the cause of the old end.
    cause: Cause,
}

impl Move {
    fn of(edge: Edge, sides: &Sides<'_>, formats: [Option<&str>; 2]) -> Option<Move> {
        if !sides.shared.meets(Types::NUMBER) {
            return None;
        }
        let is_whole = !sides.shared.meets(Types::FRACTION);
        let end = |side: &Side<'_>, format| edge.end(side.schema, format, is_whole);
        let (old, new) = (end(&sides.old, formats[0]), end(&sides.new, formats[1]));
        let change = edge.change(old.as_ref(), new.as_ref())?;
        let takes = |end: &Option<End>, value: &Value| {
            let number = exact_value(value);
            number.is_none_or(|number| edge.takes(end.as_ref(), number))
        };
        let action = sides.restriction(
            (change == Action::Narrowed, change == Action::Widened),
            (
                |value: &_| takes(&old, value),
                |value: &_| takes(&new, value),
            ),
        )?;
        let cause = match action {
            Action::Narrowed => new?.cause,
            _ => old?.cause,
        };
        Some(Move {
            edge,
            action,
            cause,
        })
    }
}

impl Edge {
    /// Returns the keyword for this end, the keyword that excludes the number itself, and the area of the rules.
    const fn keywords(self) -> (&'static str, &'static str, Area) {
        match self {
            Edge::Low => ("minimum", "exclusiveMinimum", Area::Minimum),
            Edge::High => ("maximum", "exclusiveMaximum", Area::Maximum),
        }
    }

    /// Returns the bound as it is written, and whether it is itself excluded.
    fn bound(self, schema: &Schema) -> Option<(&Number, bool)> {
        let (keyword, exclusive, _) = self.keywords();
        let number = match (&schema.shape, self) {
            (Shape::Integer { minimum, .. } | Shape::Number { minimum, .. }, Edge::Low) => {
                minimum.as_ref()
            }
            (Shape::Integer { maximum, .. } | Shape::Number { maximum, .. }, Edge::High) => {
                maximum.as_ref()
            }
            (Shape::Any, _) => schema.constraints.get(keyword)?.as_number(),
            _ => None,
        }?;
        let exclusive = schema.constraints.get(exclusive) == Some(&Value::Bool(true));
        Some((number, exclusive))
    }

    /// Returns the end of the numbers that `schema` allows, or of the whole numbers among them if `is_whole` is set.
    fn end(self, schema: &Schema, format: Option<&str>, is_whole: bool) -> Option<End> {
        let held = self.end_of(&range(format).flatten());
        let bound = self.bound(schema).and_then(|(number, exclusive)| {
            let number = exact(number)?;
            let (number, beside) = match (is_whole, self, exclusive) {
                (false, _, false) => (number, 0),
                (false, Edge::Low, true) => (number, 1),
                (false, Edge::High, true) => (number, -1),
                (true, Edge::Low, false) => (number.ceil(), 0),
                (true, Edge::Low, true) => (number.floor() + whole(1), 0),
                (true, Edge::High, false) => (number.floor(), 0),
                (true, Edge::High, true) => (number.ceil() - whole(1), 0),
            };
            Some(End {
                number,
                beside,
                cause: Cause::Bound,
            })
        });
        match (held, bound) {
            (Some(held), Some(bound)) if self.inwards(&bound, &held) == Ordering::Less => {
                Some(held)
            }
            (held, bound) => bound.or(held),
        }
    }

    /// Returns the end of a format's range.
    fn end_of(self, range: &Range) -> Option<End> {
        let [low, high] = range.as_ref()?;
        let number = match self {
            Edge::Low => low,
            Edge::High => high,
        };
        Some(End {
            number: number.clone(),
            beside: 0,
            cause: Cause::Format,
        })
    }

    /// Compares how far inwards two ends lie. `Greater` means that `one` allows less than `other`.
    fn inwards(self, one: &End, other: &End) -> Ordering {
        let order = (&one.number, one.beside).cmp(&(&other.number, other.beside));
        match self {
            Edge::Low => order,
            Edge::High => order.reverse(),
        }
    }

    /// Returns the change of an end. `None` as an end means that there is no limit.
    fn change(self, old: Option<&End>, new: Option<&End>) -> Option<Action> {
        let inwards = match (old, new) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(old), Some(new)) => self.inwards(new, old),
        };
        match inwards {
            Ordering::Equal => None,
            Ordering::Greater => Some(Action::Narrowed),
            Ordering::Less => Some(Action::Widened),
        }
    }

    /// Whether a number lies within the end.
    fn takes(self, end: Option<&End>, number: BigRational) -> bool {
        let number = End {
            number,
            beside: 0,
            cause: Cause::Bound,
        };
        end.is_none_or(|end| self.inwards(&number, end) != Ordering::Less)
    }
}
