//! The report: what was attacked, with what, and what held.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Family, Verdict};
use crate::host_facts::{HostFacts, RunsOn};
use crate::report_json::{self, ReportError};

/// The version of the report's schema.
pub const SCHEMA_VERSION: u32 = 1;

/// What was attacked, with what, and what held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedteamReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of this crate.
    pub crate_version: String,
    /// When the first probe began.
    pub began_at: Timestamp,
    /// When the last one ended.
    pub ended_at: Timestamp,
    /// The command line, if it was a command.
    pub command_line: Vec<String>,
    /// What VMMs of this host run on.
    pub runs_on: RunsOn,
    /// The host.
    pub host: HostFacts,
    /// What the sandbox is made of: `chv`, `vf` or `stub`; null where none could be made.
    pub sandbox: Option<String>,
    /// The golden snapshot's directory, where there is one.
    pub golden: Option<String>,
    /// The VMM's release, as `v53.0`, where there is one.
    pub release: Option<String>,
    /// How the sandbox is reset: `fresh` or `in_place`, where that was said.
    pub strategy: Option<String>,
    /// How many dispatches looked for markers, at most.
    pub marker_dispatches: u64,
    /// How many sandboxes were made for the battery; those of the family `substrate` are not among them.
    pub sandboxes: u64,
    /// How many tools were sent to them.
    pub dispatches: u64,
    /// The resets of these sandboxes.
    pub resets: ResetCounts,
    /// What the first 16 resets that failed found, each with its code.
    pub failures: Vec<String>,
    /// Whether it was interrupted. The probes that were under way or not begun then are skipped.
    pub interrupted: bool,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// Each probe.
    pub probes: Vec<ProbeReport>,
}

/// How the resets of a battery came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetCounts {
    /// Every source agreed with its baseline.
    pub verified: u64,
    /// They were made, and nothing was verified.
    pub unverified: u64,
    /// They diverged, or could not be made.
    pub failed: u64,
}

/// A probe with its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The probe's name.
    pub name: String,
    /// What it belongs to.
    pub family: Family,
    /// What it tries.
    pub tries: String,
    /// What would be a breach.
    pub breach: String,
    /// How it came out.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How many tools were sent for it. The dispatches for markers serve all of their probes, and count for the first one.
    pub dispatches: u64,
    /// How long it took, in microseconds.
    pub micros: u64,
}

impl RedteamReport {
    /// Reads a report as JSON.
    ///
    /// # Errors
    ///
    /// [`ReportError::Version`] for one of another schema, [`ReportError::Malformed`] for anything else.
    pub fn from_json(json: &[u8]) -> Result<RedteamReport, ReportError> {
        report_json::parse(json, "report of a redteam battery", SCHEMA_VERSION)
    }

    /// Whether there was a probe, and each one passed.
    pub fn is_passed(&self) -> bool {
        let mut verdicts = self.probes.iter().map(|probe| &probe.verdict);
        !self.interrupted && !self.probes.is_empty() && verdicts.all(Verdict::is_passed)
    }

    /// Whether there was a breach.
    pub fn is_breached(&self) -> bool {
        self.probes.iter().any(|probe| probe.verdict.is_failed())
    }

    /// The report of one probe.
    pub fn probe(&self, name: &str) -> Option<&ProbeReport> {
        self.probes.iter().find(|probe| probe.name == name)
    }
}
