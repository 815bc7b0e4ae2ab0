//! Numbers of a document as exact fractions.

use num_rational::BigRational;
use serde_json::{Number, Value};

/// The largest power of ten that is written out. The digits of an `f64` need no more than 324 places and 17 digits.
/// Without a limit, a few bytes (`1e999999999`) could need gigabytes.
const MAX_EXPONENT: usize = 400;

/// Returns the number that the decimal digits denote: `0.1` is one tenth, not the nearest binary fraction. `None` for a
/// number that no `f64` can hold.
pub(super) fn exact(number: &Number) -> Option<BigRational> {
    let text = number.to_string();
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse().ok()?),
        None => (text.as_str(), 0_i64),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let zeros = usize::try_from(exponent.unsigned_abs()).ok()?;
    if zeros > MAX_EXPONENT {
        return None;
    }
    let zeros = "0".repeat(zeros);
    let ratio = match exponent < 0 {
        true => format!("{whole}{fraction}/1{zeros}"),
        false => format!("{whole}{fraction}{zeros}"),
    };
    ratio.parse().ok()
}

/// As [`exact`], for a value that may not be a number.
pub(super) fn exact_value(value: &Value) -> Option<BigRational> {
    exact(value.as_number()?)
}

/// Converts a small whole number.
pub(super) fn whole(number: impl Into<i128>) -> BigRational {
    BigRational::from_integer(number.into().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_its_decimal_digits_say() {
        fn check(text: &str, expected: &str) {
            let number: Number = serde_json::from_str(text).unwrap();
            let found = exact(&number).map(|ratio| ratio.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{text}");
        }
        check("0", "0");
        check("-0.0", "0");
        check("1", "1");
        check("1.0", "1");
        check("1e0", "1");
        check("-2.50", "-5/2");
        check("0.1", "1/10");
        check("1e-3", "1/1000");
        check("120e-1", "12");
        check("18446744073709551615", "18446744073709551615");
        check("-9223372036854775808", "-9223372036854775808");
        check("1.5e300", &format!("15{}", "0".repeat(299)));
        check("5e-324", &format!("1/2{}", "0".repeat(323)));
    }
}
