//! [`Distribution`]: the distribution of the times of one step.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How many samples of a step are kept individually: 100,000. Further samples count in the figures and in the histogram
/// only.
pub const MAX_SAMPLES: usize = 100_000;

/// The upper bound of the histogram, in microseconds: one day. Longer times count as this time.
const LONGEST: u64 = 24 * 60 * 60 * 1_000_000;

/// A percentile is at most 0.1 % above the sample that it stands for.
const SIGNIFICANT_DIGITS: u8 = 3;

/// The distribution of the times of a [step](super#the-steps). A sample is one such time, in whole microseconds; every
/// time here is in microseconds.
///
/// The figures and the histogram count all samples, of all workers. The histogram has buckets of three significant
/// digits (an HDR histogram) up to one day; a longer time counts in it as one day.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Distribution {
    /// The number of samples. If it is 0, every figure is 0.
    pub count: u64,
    /// The exact mean of all samples; it need not be a whole number.
    pub mean: f64,
    /// The shortest sample, exactly.
    pub min: u64,
    /// The longest sample, exactly.
    pub max: u64,
    /// The median: half of the samples are not longer. Percentiles come from the histogram, so they are at most 0.1 %
    /// above the exact sample, and never below it, for times up to one day. With too few samples for a percentile, for
    /// example fewer than 1,000 for `p99_9`, it is the longest sample.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 95th percentile.
    pub p95: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p99_9: u64,
    /// The histogram: the buckets that aren't empty, those of shorter times first.
    pub histogram: Vec<Bucket>,
    /// The first [`MAX_SAMPLES`] samples: all of one worker in the order in which they were taken, then all of the
    /// next. The worker that ended first comes first.
    pub samples: Vec<u64>,
    /// How many samples are not in [`samples`](Self::samples) because there were more than [`MAX_SAMPLES`].
    pub samples_dropped: u64,
}

/// A bucket of a [histogram](Distribution::histogram).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The longest time that falls into the bucket, in microseconds, inclusive. No sample need have exactly this time.
    /// Up to 2,047 a bucket has one time only; above, it ends at most 0.1 % above its shortest time.
    pub up_to: u64,
    /// The number of samples in the bucket.
    pub count: u64,
}

/// Collects samples, and computes their distribution.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    histogram: Histogram<u64>,
    sum: u128,
    min: u64,
    max: u64,
    kept: Vec<u64>,
}

impl Samples {
    pub(super) fn new() -> Samples {
        let histogram = Histogram::new_with_bounds(1, LONGEST, SIGNIFICANT_DIGITS);
        Samples {
            histogram: histogram.expect("these bounds are valid for the histogram"),
            sum: 0,
            min: u64::MAX,
            max: 0,
            kept: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, micros: u64) {
        self.histogram.saturating_record(micros);
        self.sum += u128::from(micros);
        self.min = self.min.min(micros);
        self.max = self.max.max(micros);
        if self.kept.len() < MAX_SAMPLES {
            self.kept.push(micros);
        }
    }

    /// Adds the samples of another worker.
    pub(super) fn merge(&mut self, other: Samples) {
        // Both have the same bounds, so that each value fits.
        self.histogram += &other.histogram;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        let left = MAX_SAMPLES - self.kept.len();
        self.kept.extend(other.kept.into_iter().take(left));
    }

    pub(super) fn distribution(self) -> Distribution {
        let count = self.histogram.len();
        if count == 0 {
            return Distribution::default();
        }
        let at = |quantile| {
            let value = self.histogram.value_at_quantile(quantile);
            value.clamp(self.min, self.max)
        };
        let buckets = self.histogram.iter_recorded().map(|value| Bucket {
            up_to: value.value_iterated_to(),
            count: value.count_since_last_iteration(),
        });
        Distribution {
            count,
            mean: self.sum as f64 / count as f64,
            min: self.min,
            max: self.max,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            histogram: buckets.collect(),
            samples_dropped: count - self.kept.len() as u64,
            samples: self.kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn distribution(times: &[u64]) -> Distribution {
        let mut samples = Samples::new();
        times.iter().for_each(|time| samples.add(*time));
        samples.distribution()
    }

    /// The smallest sample with at least this share of all samples at or below it.
    fn by_sorting(times: &[u64], per_mille: usize) -> u64 {
        let mut times = times.to_vec();
        times.sort_unstable();
        times[(times.len() * per_mille).div_ceil(1000).max(1) - 1]
    }

    proptest! {
        #[test]
        fn two_workers_are_as_one(first in prop::collection::vec(0..u64::MAX, 0..300), second in prop::collection::vec(0..900_u64, 0..300)) {
            let mut samples = Samples::new();
            first.iter().for_each(|time| samples.add(*time));
            let mut others = Samples::new();
            second.iter().for_each(|time| others.add(*time));
            samples.merge(others);
            prop_assert_eq!(samples.distribution(), distribution(&[first, second].concat()));
        }

        #[test]
        fn percentiles_are_those_of_a_sort(times in prop::collection::vec(0..10_000_000_u64, 1..3000)) {
            let found = distribution(&times);
            let figures = [
                (found.p50, 500), (found.p90, 900), (found.p95, 950), (found.p99, 990), (found.p99_9, 999),
            ];
            for (figure, per_mille) in figures {
                let exact = by_sorting(&times, per_mille);
                prop_assert!(exact <= figure, "{per_mille}: {figure} < {exact}");
                prop_assert!(figure <= exact + exact / 1000 + 1, "{per_mille}: {figure} > {exact}");
            }
            prop_assert_eq!(found.min, *times.iter().min().unwrap());
            prop_assert_eq!(found.max, *times.iter().max().unwrap());
            let mean = times.iter().sum::<u64>() as f64 / times.len() as f64;
            prop_assert!((found.mean - mean).abs() < 1e-6 * mean.max(1.0));
            prop_assert_eq!(found.histogram.iter().map(|bucket| bucket.count).sum::<u64>(), found.count);
            prop_assert_eq!(&found.samples, &times);
        }
    }

    #[test]
    fn no_sample_and_one_sample_have_figures() {
        assert_eq!(distribution(&[]), Distribution::default());
        let one = distribution(&[123_457]);
        let figures = [one.min, one.p50, one.p99_9, one.max];
        assert_eq!(figures, [123_457; 4]);
        assert_eq!(one.mean, 123_457.0);
    }

    #[test]
    fn a_time_beyond_the_histogram_is_the_longest_all_the_same() {
        let found = distribution(&[0, 5, u64::MAX]);
        assert_eq!((found.min, found.p50, found.max), (0, 5, u64::MAX));
        assert_eq!(found.count, 3);
    }

    #[test]
    fn samples_beyond_the_bound_count_and_are_not_kept() {
        let found = distribution(&vec![7; MAX_SAMPLES + 3]);
        assert_eq!(found.samples.len(), MAX_SAMPLES);
        assert_eq!(found.samples_dropped, 3);
        assert_eq!(found.count, MAX_SAMPLES as u64 + 3);
        let buckets = [Bucket {
            up_to: 7,
            count: found.count,
        }];
        assert_eq!(found.histogram, buckets);
    }
}
