//! Fuzz target.

use std::path::Path;

use super::Manifest;

/// Parses a manifest. If it is accepted, writing it and parsing the result gives the same manifest.
pub(crate) fn manifest(bytes: &[u8]) {
    let path = Path::new("manifest.json");
    let Ok(manifest) = Manifest::parse(bytes, path) else {
        return;
    };
    let again = Manifest::parse(&manifest.to_bytes(), path);
    assert_eq!(again.expect("what was written is a manifest"), manifest);
}
