//! The comparison of what a person names: releases and documents.

use super::corrected::corrected;
use super::reach::Reach;
use super::{Document, Report, diff};

/// What changed from `base` to `revision`, and what it means to a client that was built for `base`.
///
/// A release is corrected: its contract is as its server has it. So a document that is compared with one is corrected
/// too, as [`check`](super::check) does it, and the corrections that don't apply to it are findings of the rule
/// `correction-stale`. A document of which it is not known of which release it is may also have the corrections of the
/// release that it is compared with: those that fewer of don't apply. Two documents are compared as they are.
pub fn compare(mut base: Document, mut revision: Document) -> Report {
    let mut stale = Vec::new();
    if base.corrected != revision.corrected {
        let (document, release) = match base.corrected {
            true => (&mut revision, base.contract.release),
            false => (&mut base, revision.contract.release),
        };
        let corrected = corrected(document.clone(), release);
        stale = corrected.stale(&Reach::of(&corrected.contract));
        document.contract = corrected.contract;
    }
    let findings = diff(&base.contract, &revision.contract);
    Report::new(base.name, revision.name, findings.into_iter().chain(stale))
}
