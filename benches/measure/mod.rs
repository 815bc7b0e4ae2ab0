//! [`Row`]: the times of calls, and [`print()`]: a table that compares them.
//!
//! The candidates of a comparison are measured in turns, one block of calls each, so that other load on the machine
//! affects all of them.

use std::time::{Duration, Instant};

/// The times of one candidate.
#[derive(Clone)]
pub(crate) struct Row {
    name: String,
    times: Vec<Duration>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>) -> Row {
        Row {
            name: name.into(),
            times: Vec::new(),
        }
    }

    /// Times `count` calls.
    pub(crate) fn block(&mut self, count: usize, mut call: impl FnMut()) {
        for _ in 0..count {
            let began = Instant::now();
            call();
            self.add(began.elapsed());
        }
    }

    /// Times `count` calls on the current runtime.
    pub(crate) async fn block_async(&mut self, count: usize, mut call: impl AsyncFnMut()) {
        for _ in 0..count {
            let began = Instant::now();
            call().await;
            self.add(began.elapsed());
        }
    }

    /// Adds a time that was measured elsewhere.
    pub(crate) fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    fn at(&self, share: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = (times.len() as f64 * share) as usize;
        times.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.at(0.5)
    }
}

/// Prints each row with its ratio to the first.
pub(crate) fn print(rows: &[Row]) {
    let base = rows[0].median().as_secs_f64();
    println!(
        "{:<46}{:>8}{:>11}{:>11}{:>9}",
        "", "calls", "p50 us", "p90 us", "ratio"
    );
    for row in rows.iter().filter(|row| !row.times.is_empty()) {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        println!(
            "{:<46}{:>8}{:>11.1}{:>11.1}{:>9.2}",
            row.name,
            row.times.len(),
            micros(row.median()),
            micros(row.at(0.9)),
            row.median().as_secs_f64() / base,
        );
    }
}

/// Prints the load of the machine, because figures from a busy machine mean little.
pub(crate) fn print_load() {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_ascii_whitespace().take(2).collect();
    println!("{cores} cores, load {}", load.join(" "));
}
