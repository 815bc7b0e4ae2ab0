//! Attacks a sandbox with a battery of probes, and reports what held.
//!
//! [`attack`] takes a [`Plan`], which says how a sandbox is made, and returns a [`RedteamReport`] with a [`Verdict`] for each
//! [`Probe`] of [`probes`]. `chv-sandbox redteam` is this module as a command.
//!
//! A probe uses nothing but the [`Sandbox`](crate::sandbox::Sandbox) trait and the image's tool `sh`. It runs a script in the
//! guest, and after a reset another one that looks for what the first one left:
//!
//! ```text
//!   make ──▶ boot ──▶ dispatch ──▶ reset ──▶ dispatch ──▶ reset ──▶ …
//!     ▲               attack        │         look
//!     └──── another sandbox, after a reset that was not verified
//! ```
//!
//! # Verdicts
//!
//! | verdict | means |
//! |---|---|
//! | `passed` | it was tried, and nothing came of it; `evidence` says what was tried, and how often |
//! | `failed` | a breach; `evidence` quotes what was seen |
//! | `skipped` | it could not be tried or not be decided; `reason` says why. It does not count as passed |
//!
//! # What a verdict rests on
//!
//! The guest under attack runs the scripts, so a guest that lies can hide what they find. Where the host can judge by itself it
//! does: random bytes, the clock, free memory, the bytes of an output, how a tool ended, whether a reset was verified. The
//! battery finds what an honest guest can see. It does not replace the verification of resets, which expects a guest that lies.
//!
//! # What it can harm
//!
//! The scripts look for rights by using them as harmlessly as that goes: they open devices and controls of the kernel without
//! writing to them, and set the clock to what it shows. Still they fill memory, disk and process table and leave processes
//! behind, since a reset has to cope with that. A sandbox that isolates nothing lets them do so to its host: never point a
//! battery at one that runs scripts on the host itself.
//!
//! # The report as JSON
//!
//! Its types document each field. Fields may be added to [`SCHEMA_VERSION`] 1; another number means that one of these has
//! changed.

mod attacker;
mod battery;
mod driver;
mod plan;
mod probe;
mod report;
mod script;
mod substrate;

pub use crate::report_json::ReportError;
pub use battery::probes;
pub use driver::{Progress, attack};
pub use plan::{MakeError, Plan, Subject, UnknownProbe};
pub use probe::{Family, Probe, Verdict};
pub use report::{ProbeReport, RedteamReport, ResetCounts, SCHEMA_VERSION};
pub use substrate::{Moment, StagedLie, Substrate};
