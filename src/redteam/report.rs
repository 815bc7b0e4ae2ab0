//! [`RedteamReport`]: the result of an attack, and its JSON.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Family, Verdict};
use crate::host_facts::{HostFacts, RunsOn};
use crate::report_json::{self, ReportError};

/// The version of the report's schema.
pub const SCHEMA_VERSION: u32 = 1;

/// The result of an attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// The platform of this host's VMMs.
    pub runs_on: RunsOn,
    /// The host.
    pub host: HostFacts,
    /// The backend of the sandbox: `chv`, `vf` or `stub`; null if no sandbox could be made.
    pub sandbox: Option<String>,
    /// The golden snapshot's directory; null if there is none.
    pub golden: Option<String>,
    /// The VMM's release, such as `v53.0`; null if it is unknown.
    pub release: Option<String>,
    /// How the sandbox is reset: `fresh` or `in_place`; null for the sandbox's default.
    pub strategy: Option<String>,
    /// The planned number of dispatches for markers; fewer are made if they are stopped early.
    pub marker_dispatches: u64,
    /// How many sandboxes were made, not counting those of the family `substrate`.
    pub sandboxes: u64,
    /// How many tools were sent to them.
    pub dispatches: u64,
    /// The resets of these sandboxes.
    pub resets: ResetCounts,
    /// The errors of the first 16 failed resets, each with its code.
    pub failures: Vec<String>,
    /// Whether the attack was interrupted. Probes that were not completed by then are skipped.
    pub interrupted: bool,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// Each probe.
    pub probes: Vec<ProbeReport>,
}

/// The results of the resets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResetCounts {
    /// Every source agreed with its baseline.
    pub verified: u64,
    /// The sandbox was reset, but nothing was verified, because there are no baselines.
    pub unverified: u64,
    /// The reset diverged, or could not be made.
    pub failed: u64,
}

/// A probe with its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProbeReport {
    /// The probe's name.
    pub name: String,
    /// The family that it belongs to.
    pub family: Family,
    /// What it tries.
    pub tries: String,
    /// The result that would be a breach.
    pub breach: String,
    /// The result.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How many tools were sent for it. The dispatches for markers serve all probes of that family, and are counted for
    /// the first.
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

    /// Whether at least one probe was tried, all of them passed, and the attack was not interrupted.
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
