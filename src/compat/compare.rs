//! [`compare`] compares two documents, or a document and a release, as a user names them.

use super::corrected::corrected;
use super::reach::Reach;
use super::{Document, Report, diff};

/// Returns the changes from `base` to `revision`, and their effect on a client that was built for `base`.
///
/// The contract of a release includes the corrections that describe its server. So a document that is compared with a
/// release is corrected too, as in [`check`](super::check). The corrections that don't apply to it are findings of the
/// rule `correction-stale`. If the release of the document is not known, it gets the corrections of the release that it
/// is compared with, or those for the release after the newest one: the set of which fewer corrections fail. Two
/// documents are compared without corrections.
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
