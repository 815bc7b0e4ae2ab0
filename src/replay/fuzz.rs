//! The fuzz target for cassettes.

use super::Cassette;

/// Parses `bytes` as a cassette. If that succeeds, writing it and parsing it again must give the same cassette.
pub(crate) fn cassette(bytes: &[u8]) {
    let Ok(cassette) = Cassette::from_slice(bytes) else {
        return;
    };
    let written = cassette.to_string();
    let again = Cassette::from_slice(written.as_bytes()).expect("what was written is a cassette");
    assert_eq!(again.to_string(), written);
}
