//! What the resets took, and what they cost this process.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use chv_sandbox::sandbox::ResetReport;

use super::patient;

/// More than this and it grows, in KiB.
const FLAT_KIB: u64 = 8 * 1024;

/// Times of resets, whole and by step.
#[derive(Default)]
pub(super) struct Figures {
    /// By the step's place and name, in microseconds.
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

/// What this process uses at a moment.
#[derive(Debug)]
pub(super) struct Usage {
    descriptors: usize,
    resident_kib: u64,
}

impl Usage {
    pub(super) fn now() -> Usage {
        // Counted page by page, where the count in `status` is put together now and then.
        let maps = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let resident = maps.lines().find_map(|line| line.strip_prefix("Rss:"));
        let resident = resident.and_then(|text| text.trim().strip_suffix(" kB"));
        Usage {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            resident_kib: resident.unwrap().parse().unwrap(),
        }
    }

    /// As many descriptors are open as then, once the tasks that hold some have ended.
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

    /// No more memory is used than then.
    pub(super) fn assert_memory_is_flat(&self) {
        let (then, now) = (self.resident_kib, Usage::now().resident_kib);
        println!("memory of this process: {then} KiB when warm, {now} KiB after the last");
        assert!(now < then + FLAT_KIB);
    }
}

/// Says what something took.
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Stopwatch(Instant::now())
    }

    pub(super) fn say(self, what: impl fmt::Display) {
        println!("{what} after {:.1?}", self.0.elapsed());
    }
}
