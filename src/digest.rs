//! [`Digest`]: a SHA-256 digest in the text form that baselines, manifests, reports and the wire use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hex::{self, Hex};

/// A SHA-256 digest. Its text is `sha256:` and 64 lower-case hexadecimal digits, in JSON too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of zero bytes.
    ///
    /// Every empty disk has it, so it proves nothing of a disk's content and must be refused as a baseline.
    pub const OF_NOTHING: Digest = Digest([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55,
    ]);

    /// Computes the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Sha256::digest(bytes).into()
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }
}

impl From<sha2::digest::Output<Sha256>> for Digest {
    fn from(output: sha2::digest::Output<Sha256>) -> Digest {
        Digest(output.into())
    }
}

const PREFIX: &str = "sha256:";

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(f, PREFIX, &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not a digest of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a digest: it must be `{prefix}` and 64 lower-case hexadecimal digits")]
pub struct ParseDigestError {
    /// The prefix that the text should have.
    prefix: &'static str,
    /// The text, cut one character after the length that a digest has.
    text: String,
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    /// Accepts exactly what `Display` writes: `^sha256:[a-f0-9]{64}$`. Another case, another prefix and spaces are
    /// refused.
    fn from_str(text: &str) -> Result<Digest, ParseDigestError> {
        parse_text(PREFIX, text).map(Digest)
    }
}

/// Writes a digest as `prefix` and 64 lower-case hexadecimal digits.
pub(crate) fn write_text(
    f: &mut fmt::Formatter<'_>,
    prefix: &str,
    bytes: &[u8; 32],
) -> fmt::Result {
    write!(f, "{prefix}{}", Hex(bytes))
}

/// Accepts exactly what [`write_text`] writes with the same prefix.
pub(crate) fn parse_text(prefix: &'static str, text: &str) -> Result<[u8; 32], ParseDigestError> {
    let digits = text.strip_prefix(prefix);
    let bytes = digits.and_then(|digits| hex::parse(digits.as_bytes()));
    bytes.ok_or_else(|| ParseDigestError {
        prefix,
        text: text.chars().take(prefix.len() + 64 + 1).collect(),
    })
}

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Digest, ParseDigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From FIPS 180-2, appendix B.1.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_survives_text_and_json() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), ABC);
        assert_eq!(format!("{digest:?}"), ABC);
        assert_eq!(ABC.parse(), Ok(digest));
        assert_eq!(Digest::from(*digest.as_bytes()), digest);
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{ABC}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn the_digest_of_nothing_is_known() {
        assert_eq!(Digest::of(b""), Digest::OF_NOTHING);
    }

    #[test]
    fn everything_else_is_refused() {
        let cases = [
            String::new(),
            "sha256:".into(),
            "sha256:not-configured".into(),
            ABC.replace("sha256:", ""),
            ABC.replace("sha256:", "SHA256:"),
            ABC.replace("sha256:", "sha512:"),
            ABC.replace("sha256:", "fsverity-sha256:"),
            ABC.to_uppercase().replace("SHA256:", "sha256:"),
            ABC.replace('f', "g"),
            ABC[..ABC.len() - 1].into(),
            format!("{ABC}0"),
            format!("{ABC}\n"),
            format!(" {ABC}"),
            // As many bytes as a digest has, but with a character of two bytes.
            format!("sha256:{}é", "0".repeat(62)),
        ];
        for text in cases {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was accepted");
            assert!(serde_json::from_value::<Digest>(text.into()).is_err());
        }
    }

    #[test]
    fn the_error_quotes_only_the_beginning() {
        let error = "x".repeat(1 << 20).parse::<Digest>().unwrap_err();
        assert!(error.to_string().len() < 250, "{error}");
    }
}
