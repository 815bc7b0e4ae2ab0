//! Formats reports for readers: [`text`](text()) for a terminal, and [`markdown`](markdown()) for a comment on a pull
//! request. [`Report::page`] arranges a report into the [`Page`] that both take.
//!
//! The names in a report come from documents that may be hostile. Control characters and markup in them are made
//! visible, so that they have no effect on the terminal or the page.

mod markdown;
mod text;

pub use markdown::markdown;
pub use text::{Layout, text};

use super::{Direction, Finding, Level, Report, Verdict};

/// A report, arranged for readers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<'r> {
    /// The verdict of the report.
    pub verdict: Verdict,
    /// The verdict in one sentence.
    pub headline: String,
    /// The findings, the most severe first. Each finding is in one section.
    pub sections: Vec<Section<'r>>,
}

/// Findings with something in common.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Section<'r> {
    /// The title of the section.
    pub title: &'static str,
    /// The findings.
    pub findings: Vec<&'r Finding>,
}

impl Report {
    /// Arranges the report for readers. Breaking findings come first.
    pub fn page(&self) -> Page<'_> {
        let Report { base, revision, .. } = self;
        let answer = match (self.verdict, self.findings.is_empty()) {
            (Verdict::Breaking, _) => {
                format!("{revision} breaks clients that were built for {base}")
            }
            (Verdict::Compatible, false) => {
                format!("{revision} is compatible with clients that were built for {base}")
            }
            (Verdict::Compatible, true) => {
                format!("{revision} is the same as {base} for clients")
            }
        };
        Page {
            verdict: self.verdict,
            headline: format!("{answer}{}", self.counts()),
            sections: Section::by_level(self.findings.iter().collect()),
        }
    }

    /// Returns the number of findings of each level, to be appended to a sentence.
    pub(super) fn counts(&self) -> String {
        let counts: Vec<String> = [
            (Level::Breaking, "breaking"),
            (Level::Warning, "to look at"),
            (Level::Info, "for information"),
        ]
        .into_iter()
        .filter_map(|(level, name)| {
            let findings = self.findings.iter();
            let count = findings.filter(|finding| finding.level == level).count();
            (count > 0).then(|| format!("{count} {name}"))
        })
        .collect();
        match counts.is_empty() {
            true => ".".to_owned(),
            false => format!(": {}.", counts.join(", ")),
        }
    }
}

impl<'r> Section<'r> {
    /// Groups the findings that have the same message and place in both directions.
    fn groups(&self) -> impl Iterator<Item = &[&'r Finding]> {
        self.findings.chunk_by(|one, other| {
            (&one.path, &one.message, one.evidence) == (&other.path, &other.message, other.evidence)
        })
    }

    /// Returns a section for each level that has findings.
    pub(super) fn by_level(findings: Vec<&'r Finding>) -> Vec<Section<'r>> {
        [
            (Level::Breaking, "Breaking"),
            (
                Level::Warning,
                "Warnings: the document alone does not decide these",
            ),
            (Level::Info, "For information"),
        ]
        .into_iter()
        .map(|(level, title)| Section {
            title,
            findings: findings
                .iter()
                .filter(|finding| finding.level == level)
                .copied()
                .collect(),
        })
        .filter(|section| !section.findings.is_empty())
        .collect()
    }
}

/// Returns the words before the operations of a finding.
const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Request => "sent with",
        Direction::Response => "received from",
    }
}
