//! Decodes a JSON string into an allocation that is no longer than the string itself.
//!
//! serde_json unescapes a string into a buffer that grows by doubling, and then copies it. For a tool's output, which
//! may fill a frame, that would take three times the memory of the frame.

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

/// Reads a string, for `#[serde(deserialize_with)]`. The deserialiser must read JSON text from memory, since the raw
/// string is borrowed from that text.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?.get();
    let quoted = raw
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .ok_or_else(|| de::Error::custom(format_args!("expected a string, found {raw:.20}")))?;
    unescape(quoted).ok_or_else(|| de::Error::custom("a string has an escape that is no character"))
}

/// Decodes the text between the quotes of a JSON string. `None` if it has an invalid escape or an unpaired surrogate.
fn unescape(mut rest: &str) -> Option<String> {
    // No escape is shorter than the character that it stands for, so this capacity is enough.
    let mut text = String::with_capacity(rest.len());
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let (character, after) = escape(&rest[at + 1..])?;
        text.push(character);
        rest = after;
    }
    text.push_str(rest);
    text.shrink_to_fit();
    Some(text)
}

/// Decodes the escape whose backslash stands before `text`. Returns the character and the text after the escape.
fn escape(text: &str) -> Option<(char, &str)> {
    let mut rest = text.chars();
    let character = match rest.next()? {
        same @ ('"' | '\\' | '/') => same,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return unicode(rest.as_str()),
        _ => return None,
    };
    Some((character, rest.as_str()))
}

/// Decodes a `\u` escape, or two of them that form a surrogate pair. `text` begins after the first `\u`.
fn unicode(text: &str) -> Option<(char, &str)> {
    let (first, rest) = four_digits(text)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, rest));
    }
    let (second, rest) = four_digits(rest.strip_prefix("\\u")?)?;
    let pair = [first, second].map(|unit| u16::try_from(unit).unwrap_or_default());
    let mut decoded = char::decode_utf16(pair);
    match (decoded.next()?, decoded.next()) {
        (Ok(character), None) => Some((character, rest)),
        _ => None,
    }
}

fn four_digits(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = are_digits.then(|| u32::from_str_radix(digits, 16).ok());
    Some((number??, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ours(json: &str) -> Option<String> {
        deserialize(&mut serde_json::Deserializer::from_str(json)).ok()
    }

    #[test]
    fn a_decoded_text_has_no_spare_capacity() {
        for json in [
            format!("\"{}\"", "x".repeat(1000)),
            format!("\"{}\"", "\\u0041".repeat(1000)),
        ] {
            let text = ours(&json).unwrap();
            assert!(text.len() == 1000 && text.capacity() <= 1000);
        }
    }

    #[test]
    fn anything_but_a_string_is_refused() {
        for json in [
            "1",
            "null",
            "[\"a\"]",
            "{}",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\\ud800\"",
            "\"\\ud800x\"",
            "\"\\x\"",
            "\"\\u+123\"",
            "\"\n\"",
        ] {
            assert_eq!(ours(json), None, "{json}");
        }
    }

    /// JSON strings with valid and invalid escapes.
    fn json() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()[1..].to_owned()),
            any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
            any::<char>().prop_map(|character| {
                let mut units = [0; 2];
                let units = character.encode_utf16(&mut units).iter();
                units.map(|unit| format!("\\u{unit:04X}")).collect()
            }),
            "\\\\[\"\\\\/bfnrtux]",
        ];
        let pieces = prop::collection::vec(piece, 0..8);
        pieces.prop_map(|pieces| format!("\"{}\"", pieces.concat().replace('"', "")))
    }

    proptest! {
        #[test]
        fn every_string_reads_as_serde_json_has_it(json in json()) {
            prop_assert_eq!(ours(&json), serde_json::from_str(&json).ok());
        }
    }
}
