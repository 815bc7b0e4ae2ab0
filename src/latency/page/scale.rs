//! [`LogScale`]: the positions of times on an axis.

/// The label of a tick, without needless digits.
pub(super) fn tick(micros: f64) -> String {
    let (value, unit) = match micros {
        micros if micros < 1e3 => (micros, "µs"),
        micros if micros < 1e6 => (micros / 1e3, "ms"),
        micros => (micros / 1e6, "s"),
    };
    let rounded = (value * 1e3).round() / 1e3;
    format!("{rounded} {unit}")
}

/// A logarithmic axis of times, from one round time to another.
pub(super) struct LogScale {
    from: f64,
    to: f64,
    left: f64,
    width: f64,
}

impl LogScale {
    /// An axis that shows `min` to `max`, `width` wide, beginning at `left`.
    pub(super) fn new(min: u64, max: u64, left: f64, width: f64) -> LogScale {
        let from = round_down(min.max(1) as f64);
        // One step further than needed, so that the last bar is completely visible.
        let to = next(round_down(max.max(min).max(1) as f64));
        LogScale {
            from,
            to,
            left,
            width,
        }
    }

    /// The position of a time between both ends, from 0 to 1.
    pub(super) fn share(&self, micros: f64) -> f64 {
        let share = (micros.max(self.from) / self.from).log10() / (self.to / self.from).log10();
        share.clamp(0.0, 1.0)
    }

    pub(super) fn x(&self, micros: f64) -> f64 {
        self.left + self.width * self.share(micros)
    }

    /// The times of the grid lines: 1, 2 and 5 of each decade. With more than 8 of them only the powers of ten, and at
    /// most 10 of those, so that the labels have room.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let mut all = Vec::new();
        let mut at = self.from;
        while at <= self.to * 1.001 {
            all.push(at);
            at = next(at);
        }
        if all.len() > 8 {
            all.retain(|at| is_power_of_ten(*at));
        }
        let every = all.len().div_ceil(10);
        all.into_iter().step_by(every.max(1)).collect()
    }
}

fn is_power_of_ten(at: f64) -> bool {
    let exponent = at.log10();
    (exponent - exponent.round()).abs() < 1e-6
}

/// The largest of 1, 2 and 5 times a power of ten that isn't above `at`.
fn round_down(at: f64) -> f64 {
    let decade = 10_f64.powf((at.log10() + 1e-9).floor());
    let steps = [5.0, 2.0].into_iter().map(|step| step * decade);
    steps
        .into_iter()
        .find(|step| *step <= at * (1.0 + 1e-9))
        .unwrap_or(decade)
}

/// The next value after `at` in the sequence of 1, 2 and 5 times powers of ten.
fn next(at: f64) -> f64 {
    let decade = 10_f64.powf((at.log10() + 1e-9).floor());
    match at / decade {
        step if step < 1.5 => 2.0 * decade,
        step if step < 3.0 => 5.0 * decade,
        _ => 10.0 * decade,
    }
}

/// A round number of about a fifth of `max`: the distance of the ticks of a linear axis from 0 to `max`.
pub(super) fn linear_step(max: f64) -> f64 {
    match max > 0.0 && max.is_finite() {
        true => next(round_down(max / 5.0)),
        false => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_has_no_needless_digits() {
        assert_eq!(tick(200.0), "200 µs");
        assert_eq!(tick(1000.0), "1 ms");
        assert_eq!(tick(5e6), "5 s");
    }

    #[test]
    fn an_axis_holds_its_times_and_few_ticks() {
        for (min, max) in [
            (0, 0),
            (1, 1),
            (99, 101),
            (100, 100),
            (1, u64::MAX),
            (5000, 4000),
        ] {
            let scale = LogScale::new(min, max, 10.0, 100.0);
            for time in [min, max] {
                let x = scale.x(time as f64);
                assert!((10.0..=110.0).contains(&x), "{min} {max}: {x}");
            }
            let ticks = scale.ticks();
            assert!(
                !ticks.is_empty() && ticks.len() <= 10,
                "{min} {max}: {ticks:?}"
            );
        }
        let scale = LogScale::new(120, 1900, 0.0, 1.0);
        let ticks: Vec<String> = scale.ticks().into_iter().map(tick).collect();
        assert_eq!(ticks, ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms"]);
    }

    #[test]
    fn a_linear_axis_has_few_round_ticks() {
        for max in [1.0, 7.0, 99.0, 100.0, 12_345.0] {
            let count = max / linear_step(max);
            assert!((1.0..=5.0).contains(&count), "{max}: {count}");
        }
        assert_eq!(linear_step(0.0), 1.0);
        assert_eq!(linear_step(f64::NAN), 1.0);
    }
}
