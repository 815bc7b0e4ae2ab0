//! The one form in which every comparison reports.

use std::collections::BTreeSet;

use serde::Serialize;

/// What a comparison found. Its JSON is sorted and the same for the same input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What clients were built for: a release, or the document's file.
    pub base: String,
    /// What they would meet.
    pub revision: String,
    /// What follows from the findings.
    pub verdict: Verdict,
    /// The findings, what matters most first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// A report of `findings`, which are sorted here; of equal ones, one stays.
    pub fn new(
        base: impl Into<String>,
        revision: impl Into<String>,
        findings: impl IntoIterator<Item = Finding>,
    ) -> Report {
        let mut findings: Vec<Finding> = findings.into_iter().collect();
        findings.sort_by(|one, other| one.rank().cmp(&other.rank()));
        findings.dedup();
        let breaking = findings
            .iter()
            .any(|finding| finding.level == Level::Breaking);
        Report {
            base: base.into(),
            revision: revision.into(),
            verdict: match breaking {
                true => Verdict::Breaking,
                false => Verdict::Compatible,
            },
            findings,
        }
    }
}

/// Whether a client that was built for the base can use the revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No finding is breaking.
    Compatible,
    /// At least one finding is breaking.
    Breaking,
}

/// One difference, at one place, in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule that found it.
    pub id: &'static str,
    /// How much it matters.
    pub level: Level,
    /// Whether clients send it or receive it.
    pub direction: Direction,
    /// The JSON pointer of what changed: in the base for what was removed, else in the revision.
    pub path: String,
    /// What changed, by name, in a sentence.
    pub message: String,
    /// How it is known.
    pub evidence: Evidence,
    /// The operations that reach the place, by name (`vm.create`).
    pub affects: BTreeSet<String>,
}

impl Finding {
    /// What findings are sorted by: the worst first, then by place.
    fn rank(&self) -> impl Ord + '_ {
        let Finding {
            id,
            level,
            direction,
            path,
            message,
            ..
        } = self;
        (level, path, direction, id, message)
    }
}

/// How much a finding matters to a client that was built for the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It stops working, or what it sends is lost without a word.
    Breaking,
    /// The document cannot decide.
    Warning,
    /// It does not notice.
    Info,
}

/// Which way something travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the client to the server.
    Request,
    /// From the server to the client.
    Response,
}

/// How a finding is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// A document says it.
    Document,
    /// A running server did it.
    Observed,
}
