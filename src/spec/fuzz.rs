//! The fuzz target for OpenAPI documents.

use std::path::Path;

use super::{Release, load};

/// Reads `bytes` as an OpenAPI document. If that succeeds, writing it in canonical form and reading it again must give
/// the same contract.
pub(crate) fn contract(bytes: &[u8]) {
    let path = Path::new("document");
    let Ok(contract) = load::from_bytes(path, bytes, Some(Release::UNNAMED)) else {
        return;
    };
    let written = contract.canonical();
    let again = load::from_bytes(path, written.as_bytes(), Some(Release::UNNAMED));
    assert_eq!(again.expect("what was written is a contract"), contract);
}
