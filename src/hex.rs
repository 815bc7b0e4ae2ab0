//! Bytes as lower-case hexadecimal digits, two for each.

use std::fmt;

/// Displays bytes as digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Accepts exactly what [`Hex`] displays of `N` bytes, so bytes have one text.
pub(crate) fn parse<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_text() {
        for bytes in [[0x00, 0x0f], [0xa9, 0xff]] {
            assert_eq!(
                parse(Hex(&bytes).to_string().as_bytes()),
                Some(bytes),
                "{bytes:?}"
            );
        }
        for other in ["", "a9f", "a9ff0", "a9fff0", "A9FF", "a9fg", " 9ff", "+9ff"] {
            assert_eq!(parse::<2>(other.as_bytes()), None, "{other:?}");
        }
    }
}
