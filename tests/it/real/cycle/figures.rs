//! The times of the resets, and the descriptors and memory that this process uses.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use chv_sandbox::sandbox::ResetReport;

use super::patient;

/// The growth of memory, in KiB, that still counts as flat.
const FLAT_KIB: u64 = 8 * 1024;

/// The times of resets, as a whole and by step.
#[derive(Default)]
pub(super) struct Figures {
    /// The times in microseconds, by the step's position and name.
    steps: BTreeMap<(usize, &'static str), Vec<u64>>,
    whole: Vec<u64>,
}

impl Figures {
    pub(super) fn add(&mut self, report: &ResetReport) {
        assert_eq!(report.attempt, 1);
        self.whole.push(report.micros);
        for (place, step) in report.steps.iter().enumerate() {
            let times = self.steps.entry((place, step.name)).or_default();
            times.push(step.micros);
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12}{:>10}{:>10}{:>10}  ms", "", "p50", "p90", "max")?;
        let steps = self.steps.iter().map(|((_, name), times)| (*name, times));
        for (name, times) in steps.chain([("whole reset", &self.whole)]) {
            let mut times = times.clone();
            times.sort_unstable();
            write!(f, "\n{name:<12}")?;
            for percent in [50, 90, 100] {
                let rank = (times.len() * percent).div_ceil(100);
                let micros = rank.checked_sub(1).map_or(0, |index| times[index]);
                write!(f, "{:>10.1}", micros as f64 / 1000.0)?;
            }
        }
        Ok(())
    }
}

/// The descriptors and the memory of this process at one moment.
#[derive(Debug)]
pub(super) struct Usage {
    descriptors: usize,
    resident_kib: u64,
}

impl Usage {
    pub(super) fn now() -> Usage {
        // This file counts the pages at the time of the read; the kernel updates the count in `status` only now and
        // then.
        let maps = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let resident = maps.lines().find_map(|line| line.strip_prefix("Rss:"));
        let resident = resident.and_then(|text| text.trim().strip_suffix(" kB"));
        Usage {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            resident_kib: resident.unwrap().parse().unwrap(),
        }
    }

    /// Waits until as many descriptors are open as at that moment. Tasks that are about to end may still hold some.
    pub(super) async fn assert_descriptors_are_back(&self) {
        let deadline = Instant::now() + patient(Duration::from_secs(5));
        loop {
            let now = Usage::now().descriptors;
            if now == self.descriptors {
                return;
            }
            let before = self.descriptors;
            assert!(Instant::now() < deadline, "{now} open, {before} before");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Checks that this process uses no more memory than at that moment.
    pub(super) fn assert_memory_is_flat(&self) {
        let (then, now) = (self.resident_kib, Usage::now().resident_kib);
        println!("memory of this process: {then} KiB when warm, {now} KiB after the last");
        assert!(now < then + FLAT_KIB);
    }
}

/// Prints the time that a part of the test took.
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Stopwatch(Instant::now())
    }

    pub(super) fn say(self, what: impl fmt::Display) {
        println!("{what} after {:.1?}", self.0.elapsed());
    }
}
