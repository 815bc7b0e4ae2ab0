//! Tests of `latency`: measuring, the report and its page.

mod measuring;
mod page;
mod report;

use chv_sandbox::latency::LatencyReport;

/// A report of schema 1 with every kind of case, as this version writes it.
pub(crate) const EXAMPLE: &str = include_str!("example.json");

fn example() -> LatencyReport {
    LatencyReport::from_json(EXAMPLE.as_bytes()).unwrap()
}
