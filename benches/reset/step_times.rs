//! [`StepTimes`]: the times of each step of a reset, over many resets.

use std::fmt;
use std::time::Duration;

use chv_sandbox::machine::Step;

use super::millis;

/// The times of each step. Its text has the median of each step.
#[derive(Default)]
pub(crate) struct StepTimes(Vec<(&'static str, Vec<u64>)>);

impl StepTimes {
    /// Adds the steps of one reset. A step that occurs twice counts once, with the sum of its times.
    pub(crate) fn add(&mut self, steps: &[Step]) {
        for (at, step) in steps.iter().enumerate() {
            let is_same = |other: &&Step| other.name == step.name;
            if steps[..at].iter().any(|other| is_same(&other)) {
                continue;
            }
            let micros = steps.iter().filter(is_same).map(|step| step.micros).sum();
            match self.0.iter_mut().find(|(name, _)| *name == step.name) {
                Some((_, times)) => times.push(micros),
                None => self.0.push((step.name, vec![micros])),
            }
        }
    }
}

impl fmt::Display for StepTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, times)) in self.0.iter().enumerate() {
            let mut times = times.clone();
            times.sort_unstable();
            let median = Duration::from_micros(times[times.len() / 2]);
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{name} {:.2} ms", millis(median))?;
        }
        Ok(())
    }
}
