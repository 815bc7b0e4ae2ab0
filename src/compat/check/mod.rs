//! A document against what this crate uses and generates.
//!
//! The question is a maintainer's, when a release of Cloud Hypervisor is about to appear: does it still work, and what
//! has to change here? Three things answer it. The document, with the corrections that still apply, is compared with the
//! newest supported contract: everything in that is generated, so whatever breaks there breaks somebody. What of it this
//! crate itself sends and reads to run a sandbox is told by a recorded session. And an index of the cassettes tells
//! which recordings show a call that has changed.

mod corrections;
mod reach;
mod recorded;
mod used;

use std::collections::BTreeSet;

use super::render::{Page, Section};
use super::{Direction, Document, Evidence, Finding, Level, Report, Verdict, diff};
use crate::spec::supported;
use reach::Reach;
use used::{Touch, Used};

/// What a document would mean for this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// All that was found: first of all the differences between the newest supported release and the document, then
    /// `correction-stale` and `cassette-touched`, in the order of every report.
    pub report: Report,
    /// Those differences that touch what this crate sends or reads to run a sandbox.
    pub used: Vec<Finding>,
}

/// The rule of a correction that does not apply to the document.
const CORRECTION_STALE: &str = "correction-stale";

/// The rule of an operation that is touched and recorded.
const CASSETTE_TOUCHED: &str = "cassette-touched";

/// Holds `document` against the newest supported release and what this crate does with it.
///
/// A document that names its release is corrected as that release is, any other as the one after the newest: with the
/// corrections that have no end.
pub fn check(document: Document) -> Check {
    let base = supported::newest();
    let contract = supported::contract(base).expect("the newest release is supported");
    let corrected = corrections::apply(document.contract);
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
            finding.message += match touch {
                Touch::Sent => " This crate sends it to run a sandbox.",
                Touch::Read => " This crate reads it to run a sandbox.",
            };
            touching.push(finding.clone());
        }
    }
    findings.extend(corrected.stale(&reach));
    findings.extend(touched.iter().filter_map(|operation| cassette(operation)));
    Check {
        report: Report::new(base.to_string(), document.name, findings),
        used: touching,
    }
}

/// That `operation` is recorded, and where.
fn cassette(operation: &str) -> Option<Finding> {
    let (_, cassettes) = recorded::CASSETTES
        .iter()
        .find(|(recorded, _)| *recorded == operation)?;
    let cassettes: Vec<String> = cassettes
        .iter()
        .map(|(name, releases)| match releases {
            [] => format!("`{name}`"),
            [only] => format!("`{name}` of {only}"),
            [first, .., last] => format!("`{name}` of {first} to {last}"),
        })
        .collect();
    Some(Finding {
        id: CASSETTE_TOUCHED,
        level: Level::Info,
        direction: Direction::Response,
        path: format!("/paths/~1{operation}"),
        message: format!("`{operation}` is recorded in {}.", cassettes.join(", ")),
        evidence: Evidence::Document,
        affects: [operation.to_owned()].into(),
    })
}

impl Check {
    /// The check for people: first what has to change in this crate, then the rest.
    pub fn page(&self) -> Page<'_> {
        let Report {
            base,
            revision,
            findings,
            verdict,
        } = &self.report;
        let (used, others): (Vec<_>, Vec<_>) = findings
            .iter()
            .partition(|finding| self.used.contains(finding));
        let (stale, others): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|finding| finding.id == CORRECTION_STALE);
        let (cassettes, others): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|finding| finding.id == CASSETTE_TOUCHED);
        let breaks_use = used.iter().any(|finding| finding.level == Level::Breaking);
        let answer = match (verdict, breaks_use) {
            (Verdict::Breaking, true) => {
                format!(
                    "With {revision} this crate, built for {base}, cannot be relied on to run a sandbox"
                )
            }
            (Verdict::Breaking, false) => format!(
                "With {revision} this crate, built for {base}, runs a sandbox, but other calls that it offers break"
            ),
            (Verdict::Compatible, _) => {
                format!("With {revision} this crate, built for {base}, works as it is")
            }
        };
        let sections = [
            ("What this crate uses", used),
            ("Corrections that no longer apply", stale),
            ("Cassettes to record anew", cassettes),
        ]
        .into_iter()
        .filter(|(_, findings)| !findings.is_empty())
        .map(|(title, findings)| Section { title, findings })
        .chain(Section::by_level(others))
        .collect();
        Page {
            verdict: *verdict,
            headline: format!("{answer}{}", self.report.counts()),
            sections,
        }
    }
}
