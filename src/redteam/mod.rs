//! Attacks a sandbox with a set of probes, and reports which attacks it withstood ([`attack`]).
//!
//! [`attack`] takes a [`Plan`], which has the function that makes a sandbox, and returns a [`RedteamReport`] with a
//! [`Verdict`] for each [`Probe`] of [`probes`]. `chv-sandbox redteam` is this module as a command.
//!
//! A probe uses only the [`Sandbox`](crate::sandbox::Sandbox) trait and the image's tool `sh`. It runs a script in the
//! guest, and after a reset a second script that looks for residue of the first:
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
//! | `passed` | it was tried and did not succeed; `evidence` says what was tried, and how often |
//! | `failed` | a breach; `evidence` quotes what the probe saw |
//! | `skipped` | the attack could not be tried, or its result is unclear; `reason` says why. It does not count as passed |
//!
//! # How reliable a verdict is
//!
//! The guest under attack runs the scripts, so a guest that lies can hide what they find. Where possible the host
//! judges: random bytes, the clock, free memory, the bytes of an output, the outcome of a tool, and whether a reset was
//! verified. The probes find what an honest guest can see. They do not replace the verification of resets, which
//! expects a guest that lies.
//!
//! # What the probes can harm
//!
//! The scripts test for permissions in the least harmful way: they open devices and kernel controls without writing to
//! them, and set the clock to the time that it shows. But they do fill memory, disk and process table and leave
//! processes behind, because a reset has to cope with that. In a sandbox without isolation they do all this to the
//! host: never attack a sandbox that runs scripts on the host itself.
//!
//! # The report as JSON
//!
//! The types document each field. New fields don't change [`SCHEMA_VERSION`] 1; another number means that an existing
//! field has changed.

mod attacker;
mod battery;
mod driver;
mod findings;
mod plan;
mod probe;
mod probe_script;
mod report;
mod substrate;

pub use crate::report_json::ReportError;
pub use battery::probes;
pub use driver::{Progress, attack};
pub use plan::{MakeError, Plan, Subject, UnknownProbe};
pub use probe::{Family, Probe, Verdict};
pub use report::{ProbeReport, RedteamReport, ResetCounts, SCHEMA_VERSION};
pub use substrate::{Moment, StagedLie, Substrate};
