//! [`Time`]: formats a time for people.

use std::fmt;

/// A time in microseconds, which is displayed with three significant digits and a unit.
///
/// ```
/// use chv_sandbox::latency::Time;
///
/// assert_eq!(Time(12_345.0).to_string(), "12.3 ms");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time(pub f64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value that would be rounded up to 1000 is shown in the next unit.
        let (value, unit) = match self.0 {
            micros if micros < 999.5 => (micros, "µs"),
            micros if micros < 999_500.0 => (micros / 1e3, "ms"),
            micros => (micros / 1e6, "s"),
        };
        let decimals = match value {
            // Measurements are in whole microseconds.
            _ if unit == "µs" && value.fract() == 0.0 => 0,
            value if value < 9.995 => 2,
            value if value < 99.95 => 1,
            _ => 0,
        };
        write!(f, "{value:.decimals$} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let written = [
            (0.0, "0 µs"),
            (7.0, "7 µs"),
            (7.25, "7.25 µs"),
            (999.0, "999 µs"),
            (999.7, "1.00 ms"),
            (1234.0, "1.23 ms"),
            (9_999.0, "10.0 ms"),
            (45_678.0, "45.7 ms"),
            (999_600.0, "1.00 s"),
            (12_345_678.0, "12.3 s"),
        ];
        for (micros, expected) in written {
            assert_eq!(Time(micros).to_string(), expected);
        }
    }
}
