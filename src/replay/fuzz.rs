//! Fuzz target.

use super::Cassette;

/// A cassette's file. One that is read and written reads as the same.
pub(crate) fn cassette(bytes: &[u8]) {
    let Ok(cassette) = Cassette::from_slice(bytes) else {
        return;
    };
    let written = cassette.to_string();
    let again = Cassette::from_slice(written.as_bytes()).expect("what was written is a cassette");
    assert_eq!(again.to_string(), written);
}
