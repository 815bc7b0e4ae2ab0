//! A document against what this crate uses and generates.
//!
//! The question is a maintainer's, when a release of Cloud Hypervisor is about to appear: does it still work, and what
//! has to change here? Three things answer it. The document, with the corrections that still apply, is compared with the
//! newest supported contract: everything in that is generated, so whatever breaks there breaks somebody. What of it this
//! crate itself sends and reads to run a sandbox is told by a recorded session. And an index of the cassettes tells
//! which recordings show a call that has changed.

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

/// What a document would mean for this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// All that was found: first of all the differences between the newest supported release and the document, then
    /// `correction-stale` and `cassette-touched`, in the order of every report.
    pub report: Report,
    /// Those differences that touch what this crate sends or reads to run a sandbox.
    pub used: Vec<Finding>,
}

/// The rule of an operation that is touched and recorded.
const CASSETTE_TOUCHED: &str = "cassette-touched";

/// Holds `document` against the newest supported release and what this crate does with it.
///
/// A document that names its release, or is that of a supported one, is corrected as that release is; any other as the
/// one after the newest: with the corrections that have no end.
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

/// That `operation` is recorded, and where.
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
