//! Applies the corrections to a document that a user named.

use std::collections::BTreeSet;

use super::reach::Reach;
use super::{Direction, Document, Evidence, Finding, Level};
use crate::spec::{
    Contract, CorrectionError, CorrectionProblem, Corrections, Release, Target, supported,
};

/// The rule for a correction that does not apply to a document.
pub(super) const CORRECTION_STALE: &str = "correction-stale";

/// A document with the corrections that apply to it, and the errors of those that don't.
pub(super) struct Corrected {
    pub(super) contract: Contract,
    failures: Vec<CorrectionError>,
}

/// Corrects `document`, which is compared with a contract of the release `other`. A supported release is corrected
/// already.
pub(super) fn corrected(document: Document, other: Release) -> Corrected {
    let Document {
        contract,
        corrected,
        ..
    } = document;
    match corrected {
        true => Corrected {
            contract,
            failures: Vec::new(),
        },
        false => {
            let release = release_of(&contract, other);
            apply(contract, release)
        }
    }
}

/// Returns the release whose corrections a document gets. It is the release that the document names, or the supported
/// release whose document is equal. Any other document is either that of a future release or a changed document of
/// `other`. It is taken for the one of which fewer corrections fail.
fn release_of(contract: &Contract, other: Release) -> Release {
    if contract.release != Release::UNNAMED {
        return contract.release;
    }
    let taken_for = |release| Contract {
        release,
        ..contract.clone()
    };
    let known = supported::releases()
        .find(|release| supported::documented(*release) == Some(taken_for(*release)));
    let next = Release {
        major: supported::newest().major + 1,
        minor: 0,
    };
    known.unwrap_or_else(|| {
        let corrections = supported::corrections();
        let failures = |release| corrections.failures(&taken_for(release)).len();
        match failures(other) < failures(next) {
            true => other,
            false => next,
        }
    })
}

/// Applies the corrections of `release`. An entry that would leave invalid references is not applied.
fn apply(mut contract: Contract, release: Release) -> Corrected {
    let named = std::mem::replace(&mut contract.release, release);
    let mut failures = Vec::new();
    for entry in &supported::corrections().entries {
        let alone = Corrections {
            entries: vec![entry.clone()],
        };
        let mut tried = contract.clone();
        let (_, mut failed) = alone.attempt(&mut tried);
        match tried.check_references() {
            Ok(()) => contract = tried,
            Err(source) if failed.is_empty() => {
                failed.push(CorrectionError::Broken { release, source })
            }
            Err(_) => {}
        }
        failures.extend(failed);
    }
    contract.release = named;
    Corrected { contract, failures }
}

impl Corrected {
    /// Returns a finding for each place at which a correction doesn't apply.
    pub(super) fn stale(&self, reach: &Reach) -> Vec<Finding> {
        self.failures
            .iter()
            .filter_map(|failure| stale(failure, reach))
            .collect()
    }
}

fn stale(failure: &CorrectionError, reach: &Reach) -> Option<Finding> {
    let (path, message) = match failure {
        CorrectionError::DoesNotApply {
            name,
            place,
            problem,
            ..
        } => {
            let advice = match problem {
                CorrectionProblem::Present | CorrectionProblem::NothingToChange => {
                    "upstream has corrected its document, so end the range of the correction before this release"
                }
                _ => {
                    "check how upstream changed the place, and end the range of the correction before this release"
                }
            };
            (
                pointer(place),
                format!("the correction `{name}` does not apply to `{place}`: {problem}; {advice}"),
            )
        }
        CorrectionError::Broken { source, .. } => (
            source.pointer.clone(),
            format!("a correction does not apply: {}", source.problem),
        ),
        // These errors are about the list itself. A test reads the list, so they don't occur.
        CorrectionError::File(_)
        | CorrectionError::Syntax { .. }
        | CorrectionError::NameTaken(_)
        | CorrectionError::Idle { .. } => return None,
    };
    let (direction, affects) = match reach.operations(&path) {
        (asked, answered) if asked.is_empty() => (Direction::Response, answered),
        (asked, answered) => (Direction::Request, &asked | &answered),
    };
    Some(Finding {
        id: CORRECTION_STALE,
        level: Level::Warning,
        direction,
        path,
        message,
        evidence: Evidence::Document,
        affects: affects.into_iter().collect::<BTreeSet<_>>(),
    })
}

/// Converts the place that a correction names to a JSON pointer.
fn pointer(place: &str) -> String {
    match place.strip_prefix('/') {
        Some(path) => format!("/paths/~1{path}"),
        None => place
            .parse()
            .map_or_else(|_| String::new(), |target: Target| target.pointer()),
    }
}
