//! Reports for people: as text for a terminal, and as Markdown for a comment.
//!
//! Names in a report come from documents that anyone may have written. Whatever in them would reach the terminal or the
//! page as more than a name is made visible instead.

mod markdown;
mod text;

pub use markdown::markdown;
pub use text::{Layout, text};

use super::{Direction, Finding, Level, Report, Verdict};

/// What a report says, in the order in which a person wants to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<'r> {
    /// The answer.
    pub verdict: Verdict,
    /// The answer in a sentence.
    pub headline: String,
    /// The findings, those that matter most first; none is in two sections.
    pub sections: Vec<Section<'r>>,
}

/// Findings that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'r> {
    /// What they have in common.
    pub title: &'static str,
    /// The findings.
    pub findings: Vec<&'r Finding>,
}

impl Report {
    /// The report for people: what is breaking comes first.
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

    /// How many findings there are of each level, to end a sentence with.
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
    /// The findings, those together that say the same of one place in both directions.
    fn groups(&self) -> impl Iterator<Item = &[&'r Finding]> {
        self.findings.chunk_by(|one, other| {
            (&one.path, &one.message, one.evidence) == (&other.path, &other.message, other.evidence)
        })
    }

    /// One section for each level that has findings.
    pub(super) fn by_level(findings: Vec<&'r Finding>) -> Vec<Section<'r>> {
        [
            (Level::Breaking, "Breaking"),
            (Level::Warning, "Warnings: what no document decides"),
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

/// What comes before the operations of a finding.
const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Request => "sent with",
        Direction::Response => "received from",
    }
}
