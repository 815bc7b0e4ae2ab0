//! The supported releases of Cloud Hypervisor, with their contracts, which are compiled into the library.
//!
//! `list.rs` is generated from the folder `api-spec/`. After an import, `UPDATE=1 cargo test supported` adds the new
//! release.

mod list;

use std::path::Path;
use std::sync::OnceLock;

use super::{Contract, Corrections, Release, bounded_yaml, load};
use list::{CORRECTIONS, DOCUMENTS};

/// Returns the supported releases, oldest first.
pub fn releases() -> impl DoubleEndedIterator<Item = Release> + ExactSizeIterator {
    DOCUMENTS.iter().map(|(release, _)| *release)
}

/// Returns the newest supported release.
pub fn newest() -> Release {
    releases().next_back().expect("the list is not empty")
}

/// Returns the contract of `release` from its document, without corrections. `None` if the release is not among
/// [`releases`].
pub fn documented(release: Release) -> Option<Contract> {
    let (_, document) = DOCUMENTS.iter().find(|(known, _)| *known == release)?;
    let tree = bounded_yaml::parse_json(document.as_bytes()).expect("a test reads every document");
    Some(load::from_tree(&tree, None).expect("a test reads every document"))
}

/// Returns the contract of `release` with the [`corrections`], which describes the behaviour of the server. `None` if
/// the release is not among [`releases`].
pub fn contract(release: Release) -> Option<Contract> {
    let mut contract = documented(release)?;
    corrections()
        .apply(&mut contract)
        .expect("a test applies every correction");
    Some(contract)
}

/// Returns the reviewed corrections of all supported releases.
pub fn corrections() -> &'static Corrections {
    static PARSED: OnceLock<Corrections> = OnceLock::new();
    PARSED.get_or_init(|| {
        let path = Path::new("api-spec/corrections.toml");
        Corrections::parse(path, CORRECTIONS).expect("a test reads the corrections")
    })
}
