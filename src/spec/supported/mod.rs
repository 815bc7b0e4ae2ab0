//! The releases that this crate knows, with their contracts inside the library.
//!
//! `list.rs` is written from what lies in `api-spec/`: after an import, `UPDATE=1 cargo test supported` adds the release.

mod list;

use std::path::Path;
use std::sync::OnceLock;

use super::{Contract, Corrections, Release, load, tree};
use list::{CORRECTIONS, DOCUMENTS};

/// The releases, oldest first.
pub fn releases() -> impl DoubleEndedIterator<Item = Release> + ExactSizeIterator {
    DOCUMENTS.iter().map(|(release, _)| *release)
}

/// The newest of the releases.
pub fn newest() -> Release {
    releases().next_back().expect("the list is not empty")
}

/// The contract of `release` as its document has it; `None` for a release that is not among [`releases`].
pub fn documented(release: Release) -> Option<Contract> {
    let (_, document) = DOCUMENTS.iter().find(|(known, _)| *known == release)?;
    let tree = tree::parse_json(document.as_bytes()).expect("a test reads every document");
    Some(load::from_tree(&tree, None).expect("a test reads every document"))
}

/// The contract of `release` as its server has it, after the [`corrections`]; `None` for a release that is not among
/// [`releases`].
pub fn contract(release: Release) -> Option<Contract> {
    let mut contract = documented(release)?;
    corrections()
        .apply(&mut contract)
        .expect("a test applies every correction");
    Some(contract)
}

/// The reviewed places where the servers of the releases differ from their documents.
pub fn corrections() -> &'static Corrections {
    static PARSED: OnceLock<Corrections> = OnceLock::new();
    PARSED.get_or_init(|| {
        let path = Path::new("api-spec/corrections.toml");
        Corrections::parse(path, CORRECTIONS).expect("a test reads the corrections")
    })
}
