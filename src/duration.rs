//! [`micros`]: a duration as events and reports have it.

use std::time::Duration;

/// The duration in whole microseconds, rounded down; `u64::MAX` if it is longer than 584,000 years.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_rounded_down_and_have_a_maximum() {
        let check = |duration: Duration, expected: u64| assert_eq!(micros(duration), expected);
        check(Duration::ZERO, 0);
        check(Duration::from_nanos(999), 0);
        check(Duration::from_nanos(1_000), 1);
        check(Duration::from_secs(3), 3_000_000);
        check(Duration::from_micros(u64::MAX), u64::MAX);
        check(Duration::MAX, u64::MAX);
    }
}
