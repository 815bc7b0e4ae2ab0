//! Measures how long a host takes to acquire, use, reset and release a sandbox ([`measure`]).
//!
//! [`measure`] takes a [`Plan`] and returns a [`LatencyReport`]. A [`Case`] is a golden snapshot, a strategy and a
//! number of sandboxes that are in use at once, and the report has the [distribution](Distribution) of each step of
//! each case. [`page`] draws a report as one HTML page that needs no network. `chv-sandbox latency` is this module as a
//! command.
//!
//! # The steps
//!
//! One iteration acquires a sandbox, runs a tool in it, reads the stream of another tool, and releases the sandbox:
//!
//! ```text
//!  acquire ──▶ tool ──▶ start ──────▶ first byte ──▶ 1 MiB ──▶ recycle ──────▶ reset verified
//!  |-acquire-| |-tool-| |--first_byte--|                       |---- release ----|
//!                       |---------- stream ----------|            |--- reset ---|
//! ```
//!
//! | step | from | to |
//! |---|---|---|
//! | `boot` | the opened pool, on recordings the call of `boot` | the first sandbox of a worker; once a worker, all of them at once |
//! | `acquire` | the call of [`Pool::acquire`](crate::sandbox::Pool::acquire) | its sandbox |
//! | `tool` | the call of [`execute_tool`](crate::sandbox::Sandbox::execute_tool) of an `echo` | its verified output |
//! | `first_byte` | the call of [`start`](crate::sandbox::Sandbox::start) | the first byte of the tool's output |
//! | `stream` | the same call | the byte that completes 1 MiB |
//! | `reset` | the beginning of the reset | its verdict, as [`ResetReport`](crate::sandbox::ResetReport) has it; with steps of its own |
//! | `release` | the call of [`recycle`](crate::sandbox::PooledSandbox::recycle) | its return, when the sandbox is reset, verified and ready again |
//!
//! The streaming tool is `cat` on `/dev/zero`. It and `echo` are
//! [built in](crate::guest::dispatcher::Toolbox), so an image needs no tools file for a measurement. It needs their
//! programs, `cat` and `printf`.
//!
//! Between `stream` and `release` the streaming tool is cancelled and its end is awaited, which belongs to no step. An
//! iteration that fails or is interrupted is not counted in any step.
//!
//! # The report as JSON
//!
//! The types document each field. All times are whole microseconds, except for the mean. New fields don't change
//! [`SCHEMA_VERSION`] 1; another number means that an existing field has changed.

mod driver;
mod error;
mod iteration;
mod page;
mod plan;
mod report;
mod samples;
mod time;
mod worker;

pub use driver::{Progress, measure};
pub use error::Error;
pub use page::page;
pub use plan::{Case, MAX_AT_ONCE, MAX_RECORDED, Plan, Subject};
pub use report::{
    CaseReport, CaseState, Failure, LatencyReport, LayerFacts, NotMeasured, Options,
    SCHEMA_VERSION, StepReport, VmmRelease,
};
pub use samples::{Bucket, Distribution, MAX_SAMPLES};
pub use time::Time;

pub use crate::report_json::ReportError;
