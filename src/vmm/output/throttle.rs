//! [`Throttle`]: limits the rate at which a pipe is read, as a token bucket.

use std::time::{Duration, Instant};

/// The least number of bytes that a read counts for. Otherwise a process that writes single bytes would cause far more
/// reads than one that writes whole pages.
const LEAST: u64 = 4096;

/// The limits on reading a pipe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// How many bytes may be read at any speed after a time without reads.
    pub(super) burst: u64,
    /// How many bytes may be read in a second after that.
    pub(super) steady: u64,
}

/// A token bucket. It fills at the steady rate, up to the burst. Each read takes as many tokens as it has bytes.
#[derive(Debug)]
pub(super) struct Throttle {
    rate: Rate,
    tokens: u64,
    filled: Instant,
}

impl Throttle {
    /// Makes a full bucket.
    pub(super) fn new(rate: Rate, now: Instant) -> Throttle {
        Throttle {
            rate,
            tokens: rate.burst,
            filled: now,
        }
    }

    /// Returns how long to wait until `wanted` bytes may be read; zero if they may be read now. If `wanted` is more
    /// than the burst, it counts as the burst.
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
        // If less than one token was earned, `filled` stays, so that the time is not lost.
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
    fn a_pause_earns_at_most_the_burst() {
        let start = Instant::now();
        let mut throttle = Throttle::new(RATE, start);
        throttle.take(10_000);
        let later = start + Duration::from_secs(1_000_000);
        assert_eq!(throttle.delay(10_000, later), Duration::ZERO);
        throttle.take(10_000);
        assert!(throttle.delay(1, later) > Duration::ZERO);
        // A read of more than the burst waits only for the burst.
        let full = later + Duration::from_secs(2);
        assert_eq!(throttle.delay(u64::MAX, full), Duration::ZERO);
    }

    #[test]
    fn a_small_read_counts_as_a_page() {
        let start = Instant::now();
        let mut throttle = Throttle::new(RATE, start);
        for _ in 0..3 {
            throttle.take(1);
        }
        assert!(throttle.delay(1, start) > Duration::ZERO);
    }

    #[test]
    fn asking_often_does_not_prevent_the_bucket_from_filling() {
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
