//! [`check`] compares an API document with the API that this crate generates and uses.
//!
//! It is for a maintainer, when a release of Cloud Hypervisor is about to appear: does this crate still work with it,
//! and what has to change? The answer has three parts:
//!
//! - The document, with the corrections that still apply, is compared with the newest supported contract. This crate
//!   generates its whole API from that contract, so every breaking difference breaks some user.
//! - A recorded session shows which part of the API this crate itself sends and reads to run a sandbox.
//! - An index of the cassettes shows which recordings contain a call that has changed.

mod page;
mod place;
mod recorded;
mod used;

use std::collections::{BTreeMap, BTreeSet};

use super::corrected::corrected;
use super::reach::Reach;
use super::{Direction, Document, Evidence, Finding, Level, Report, diff};
use crate::spec::supported;
use used::Used;

/// The result of [`check`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// All findings: the differences between the newest supported release and the document, and the findings
    /// `correction-stale` and `cassette-touched`, in the order of every report.
    pub report: Report,
    /// The differences that affect what this crate sends or reads to run a sandbox.
    pub used: Vec<Finding>,
}

/// The rule for an operation that has a difference and is in a cassette.
const CASSETTE_TOUCHED: &str = "cassette-touched";

/// Compares `document` with the newest supported release, and with this crate's own use of the API.
///
/// The document is corrected first. If it names its release, or equals the document of a supported release, it gets the
/// corrections of that release. Otherwise it gets those of the newest supported release, or those for the release after
/// it, whose range has no end: the set of which fewer corrections fail.
pub fn check(document: Document) -> Check {
    let base = supported::newest();
    let contract = supported::contract(base).expect("the newest release is supported");
    let name = document.name.clone();
    let corrected = corrected(document, base);
    let reach = Reach::of(&corrected.contract);
    let used = Used::recorded(&contract);

    let mut findings = diff(&contract, &corrected.contract);
    let mut touching = Vec::new();
    let mut touched = BTreeSet::new();
    for finding in &mut findings {
        if finding.level > Level::Warning {
            continue;
        }
        touched.extend(finding.affects.iter().cloned());
        if let Some(touch) = used.touch(finding, &corrected.contract) {
            finding.message += touch.words();
            touching.push(finding.clone());
        }
    }
    findings.extend(corrected.stale(&reach));
    findings.extend(touched.iter().filter_map(|operation| cassette(operation)));
    Check {
        report: Report::new(base.to_string(), name, findings),
        used: touching,
    }
}

/// Returns a finding with the cassettes that have `operation`, if there are any.
fn cassette(operation: &str) -> Option<Finding> {
    let (_, cassettes) = recorded::CASSETTES
        .iter()
        .find(|(recorded, _)| *recorded == operation)?;
    let mut by_releases: BTreeMap<&[&str], Vec<String>> = BTreeMap::new();
    for (name, releases) in *cassettes {
        let names = by_releases.entry(releases).or_default();
        names.push(format!("`{name}`"));
    }
    let cassettes: Vec<String> = by_releases
        .into_iter()
        .map(|(releases, names)| format!("{} ({})", names.join(", "), releases.join(", ")))
        .collect();
    Some(Finding {
        id: CASSETTE_TOUCHED,
        level: Level::Info,
        direction: Direction::Response,
        path: format!("/paths/~1{operation}"),
        message: format!("`{operation}` is recorded in {}", cassettes.join(" and ")),
        evidence: Evidence::Document,
        affects: [operation.to_owned()].into(),
    })
}
