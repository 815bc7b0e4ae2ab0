//! Arranges the result of a [`Check`] for readers.

use std::collections::BTreeMap;

use super::super::corrected::CORRECTION_STALE;
use super::super::render::{Page, Section};
use super::super::{Finding, Level, Report, Verdict};
use super::{CASSETTE_TOUCHED, Check};

/// The section of a finding, in the order in which a maintainer needs them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Used,
    Breaking,
    Warning,
    Stale,
    Cassettes,
    News,
}

impl Topic {
    fn of(finding: &Finding, check: &Check) -> Topic {
        match (finding.id, finding.level) {
            (CORRECTION_STALE, _) => Topic::Stale,
            (CASSETTE_TOUCHED, _) => Topic::Cassettes,
            _ if check.used.contains(finding) => Topic::Used,
            (_, Level::Breaking) => Topic::Breaking,
            (_, Level::Warning) => Topic::Warning,
            (_, Level::Info) => Topic::News,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Topic::Used => "What this crate uses",
            Topic::Breaking => "Breaking in calls that this crate offers, but does not use itself",
            Topic::Warning => {
                "Warnings about calls that this crate offers, but does not use itself"
            }
            Topic::Stale => "Corrections that no longer apply",
            Topic::Cassettes => "Cassettes to record again",
            Topic::News => "For information",
        }
    }
}

impl Check {
    /// Returns the check as a page for readers. Findings that affect a sandbox come first, and those without an effect
    /// come last.
    pub fn page(&self) -> Page<'_> {
        let Report {
            base,
            revision,
            findings,
            verdict,
        } = &self.report;
        let breaks_use = self
            .used
            .iter()
            .any(|finding| finding.level == Level::Breaking);
        let answer = match (verdict, breaks_use) {
            (Verdict::Breaking, true) => "may fail to run a sandbox",
            (Verdict::Breaking, false) => "runs a sandbox, but other calls that it offers break",
            (Verdict::Compatible, _) => "works without changes",
        };
        let counts = self.report.counts();
        let mut topics: BTreeMap<Topic, Vec<&Finding>> = BTreeMap::new();
        for finding in findings {
            let topic = Topic::of(finding, self);
            topics.entry(topic).or_default().push(finding);
        }
        let section = |(topic, findings): (Topic, _)| Section {
            title: topic.title(),
            findings,
        };
        Page {
            verdict: *verdict,
            headline: format!("With {revision} this crate, built for {base}, {answer}{counts}"),
            sections: topics.into_iter().map(section).collect(),
        }
    }
}
