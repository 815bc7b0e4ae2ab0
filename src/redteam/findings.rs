//! [`Findings`]: what a probe's script reported, and the verdict that follows from it.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;

/// The parsed output of a script.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) tried: BTreeSet<String>,
    /// The breaches: the subject of each, and what the script saw.
    pub(super) breaches: Vec<(String, String)>,
    /// The subjects that could not be tried, and why.
    pub(super) cannot: Vec<(String, String)>,
    pub(super) said: BTreeMap<String, String>,
    pub(super) ended: bool,
    /// How the tool ended, in words.
    pub(super) outcome: String,
}

impl Findings {
    /// The verdict for a probe that is decided by its script alone.
    pub(super) fn verdict(&self) -> Verdict {
        let named = |(subject, value): &(String, String)| format!("{subject}: {value}");
        if !self.breaches.is_empty() {
            Verdict::failed(self.breaches.iter().map(named))
        } else if !self.ended {
            Verdict::skipped(self.unfinished())
        } else if !self.cannot.is_empty() {
            let reasons: Vec<String> = self.cannot.iter().map(named).collect();
            Verdict::skipped(reasons.join("; "))
        } else if self.tried.is_empty() {
            Verdict::skipped("the script tried nothing")
        } else {
            Verdict::passed(format!("tried, and nothing came of it: {}", self.what()))
        }
    }

    /// The subjects that were tried, as a list.
    pub(super) fn what(&self) -> String {
        let tried: Vec<&str> = self.tried.iter().map(String::as_str).collect();
        tried.join(", ")
    }

    pub(super) fn unfinished(&self) -> String {
        format!("the script did not come to its end: {}", self.outcome)
    }
}
