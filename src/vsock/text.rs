//! Compares bytes with a text that [`String::from_utf8_lossy`] made of them: at once ([`reads_as`]), or piece by piece
//! with the text's hash ([`Text`]).

use std::mem;

use sha2::{Digest as _, Sha256};

/// U+FFFD, which stands in a text for invalid bytes.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// The hash of the text that [`String::from_utf8_lossy`] makes of all appended bytes together. It doesn't depend on
/// where the pieces were cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    hash: Sha256,
    /// The last bytes, the beginning of a character that isn't complete yet: at most three.
    begun: Vec<u8>,
}

impl Text {
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let joined;
        let mut rest = bytes;
        if !self.begun.is_empty() {
            joined = [&mem::take(&mut self.begun), bytes].concat();
            rest = &joined;
        }
        while let Err(error) = std::str::from_utf8(rest) {
            let (valid, after) = rest.split_at(error.valid_up_to());
            self.hash.update(valid);
            let Some(invalid) = error.error_len() else {
                self.begun = after.to_vec();
                return;
            };
            self.hash.update(REPLACEMENT);
            rest = &after[invalid..];
        }
        self.hash.update(rest);
    }

    /// Whether the text equals the concatenation of `parts`.
    pub(super) fn is(&self, parts: &[&str]) -> bool {
        let mut hash = self.hash.clone();
        if !self.begun.is_empty() {
            hash.update(REPLACEMENT);
        }
        let mut expected = Sha256::new();
        parts.iter().for_each(|part| expected.update(part));
        hash.finalize() == expected.finalize()
    }
}

/// Whether `text` is the text that [`String::from_utf8_lossy`] makes of `bytes`.
pub(super) fn reads_as(bytes: &[u8], text: &str) -> bool {
    let mut rest = text.as_bytes();
    for chunk in bytes.utf8_chunks() {
        let Some(after) = rest.strip_prefix(chunk.valid().as_bytes()) else {
            return false;
        };
        rest = after;
        if !chunk.invalid().is_empty() {
            let Some(after) = rest.strip_prefix(REPLACEMENT) else {
                return false;
            };
            rest = after;
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(pieces: &[&[u8]]) -> Text {
        let mut text = Text::default();
        pieces.iter().for_each(|piece| text.append(piece));
        text
    }

    #[test]
    fn a_character_may_be_cut_anywhere() {
        for whole in ["", "a", "ü", "€", "😀", "a😀€"] {
            for first in 0..=whole.len() {
                let (one, two) = whole.as_bytes().split_at(first);
                assert!(text(&[one, two]).is(&[whole]), "{whole:?} cut at {first}");
                let bytes: Vec<_> = whole.as_bytes().chunks(1).collect();
                assert!(text(&bytes).is(&[whole]));
            }
        }
    }

    #[test]
    fn an_incomplete_character_is_replaced_once() {
        let check = |pieces: &[&[u8]], expected: &str| {
            assert!(text(pieces).is(&[expected]), "{pieces:?}");
        };
        check(&[b"\xe2\x82"], "\u{fffd}");
        check(&[b"\xe2", b"\x82"], "\u{fffd}");
        check(&[b"\xe2", b"", b"\x82x"], "\u{fffd}x");
        check(&[b"\xff", b"\xff"], "\u{fffd}\u{fffd}");
        assert!(!text(&[b"a"]).is(&["b"]) && !text(&[b"a"]).is(&["a", "a"]));
    }

    /// Bytes that often contain whole and broken characters.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let character = any::<char>().prop_map(|it| it.to_string().into_bytes());
        let piece = prop_oneof![character, prop::collection::vec(any::<u8>(), 0..4)];
        prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn the_pieces_make_the_text_of_the_whole(whole in bytes(), piece in 1_usize..9) {
            let pieces: Vec<_> = whole.chunks(piece).collect();
            let expected = String::from_utf8_lossy(&whole);
            prop_assert!(text(&pieces).is(&[&expected]));
            prop_assert!(reads_as(&whole, &expected));
        }

        #[test]
        fn bytes_read_as_one_text_only(whole in bytes(), other in bytes()) {
            let expected = String::from_utf8_lossy(&whole);
            let other = String::from_utf8_lossy(&other);
            prop_assert_eq!(reads_as(&whole, &other), expected == other);
            let longer = [&expected, "x"].concat();
            prop_assert!(!reads_as(&whole, &longer));
        }
    }
}
