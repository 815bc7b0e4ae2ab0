//! How fast a pipe is read: a token bucket.

use std::time::{Duration, Instant};

/// What a read costs at least, in bytes: a writer of single bytes must not cost more time than one of whole pages.
const LEAST: u64 = 4096;

/// How much a pipe may bring at once, and from then on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// In bytes: what is taken at any speed after a time of quiet.
    pub(super) burst: u64,
    /// In bytes per second.
    pub(super) steady: u64,
}

/// A token bucket: it fills at the steady rate, up to the burst, and each read empties it by what was read.
#[derive(Debug)]
pub(super) struct Throttle {
    rate: Rate,
    tokens: u64,
    filled: Instant,
}

impl Throttle {
    /// A full bucket.
    pub(super) fn new(rate: Rate, now: Instant) -> Throttle {
        Throttle {
            rate,
            tokens: rate.burst,
            filled: now,
        }
    }

    /// How long to wait until `wanted` bytes may be read, which are at most the burst; zero when they may be now.
    pub(super) fn delay(&mut self, wanted: u64, now: Instant) -> Duration {
        self.fill(now);
        let missing = wanted.min(self.rate.burst).saturating_sub(self.tokens);
        Duration::from_nanos(
            missing
                .saturating_mul(1_000_000_000)
                .div_ceil(self.rate.steady),
        )
    }

    /// Counts a read of `length` bytes.
    pub(super) fn take(&mut self, length: usize) {
        self.tokens = self.tokens.saturating_sub(LEAST.max(length as u64));
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let earned = nanos.saturating_mul(self.rate.steady) / 1_000_000_000;
        // Less than a token is earned later.
        if earned > 0 {
            self.tokens = self.rate.burst.min(self.tokens.saturating_add(earned));
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        burst: 10_000,
        steady: 5_000,
    };

    #[test]
    fn after_the_burst_comes_the_steady_rate() {
        let start = Instant::now();
        let mut throttle = Throttle::new(RATE, start);
        assert_eq!(throttle.delay(10_000, start), Duration::ZERO);
        throttle.take(10_000);
        let second = Duration::from_secs(1);
        assert_eq!(throttle.delay(5_000, start), second);
        assert_eq!(throttle.delay(5_000, start + second / 2), second / 2);
        assert_eq!(throttle.delay(5_000, start + second), Duration::ZERO);
        throttle.take(5_000);
        assert_eq!(throttle.delay(5_000, start + second), second);
    }

    #[test]
    fn quiet_earns_a_burst_and_no_more() {
        let start = Instant::now();
        let mut throttle = Throttle::new(RATE, start);
        throttle.take(10_000);
        let later = start + Duration::from_secs(1_000_000);
        assert_eq!(throttle.delay(10_000, later), Duration::ZERO);
        throttle.take(10_000);
        assert!(throttle.delay(1, later) > Duration::ZERO);
        // More than the burst is never waited for.
        let full = later + Duration::from_secs(2);
        assert_eq!(throttle.delay(u64::MAX, full), Duration::ZERO);
    }

    #[test]
    fn a_small_read_costs_as_a_page() {
        let start = Instant::now();
        let mut throttle = Throttle::new(RATE, start);
        for _ in 0..3 {
            throttle.take(1);
        }
        assert!(throttle.delay(1, start) > Duration::ZERO);
    }

    #[test]
    fn what_is_waited_for_in_small_steps_still_comes() {
        let start = Instant::now();
        let mut throttle = Throttle::new(RATE, start);
        throttle.take(10_000);
        let step = Duration::from_nanos(1_000);
        let mut now = start;
        let mut steps = 0;
        while throttle.delay(1, now) > Duration::ZERO {
            now += step;
            steps += 1;
            assert!(steps < 1_000, "a token takes 200 of them");
        }
    }
}
