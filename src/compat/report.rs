//! [`Report`]: the form in which every comparison gives its result.

use std::collections::BTreeSet;

use serde::Serialize;

/// The result of a comparison. Its JSON has sorted findings, so equal input gives equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The release or file that clients were built for.
    pub base: String,
    /// The release or file that the clients would be used with.
    pub revision: String,
    /// The verdict that follows from the findings.
    pub verdict: Verdict,
    /// The findings, the most severe first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Creates a report of `findings` about the two sides that `base` and `revision` name. The findings are sorted, and
    /// of equal ones only one is kept. The verdict is [`Verdict::Breaking`] if one of them is [`Level::Breaking`].
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
#[non_exhaustive]
pub struct Finding {
    /// The identifier of the rule.
    pub id: &'static str,
    /// The level for a client that was built for the base.
    pub level: Level,
    /// Whether clients send the changed part or receive it.
    pub direction: Direction,
    /// The JSON pointer of the changed part. It leads into the base if the part was removed, and else into the
    /// revision.
    pub path: String,
    /// The change in one sentence, with names.
    pub message: String,
    /// Whether a document or a running server shows the change.
    pub evidence: Evidence,
    /// The names of the operations that reach the place (`vm.create`).
    pub affects: BTreeSet<String>,
}

impl Finding {
    /// Returns the sort key of a finding: the level first, then the place.
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

/// The effect of a finding on a client that was built for the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The client stops working, or a value that it sends is lost without an error.
    Breaking,
    /// The document is not enough to decide the effect.
    Warning,
    /// The client does not notice the change.
    Info,
}

/// The direction in which a part of the API is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the client to the server.
    Request,
    /// From the server to the client.
    Response,
}

/// The source of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Evidence {
    /// A document has the difference.
    Document,
    /// A running server showed the difference.
    Observed,
}
