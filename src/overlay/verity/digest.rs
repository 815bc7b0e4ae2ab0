//! [`VerityDigest`]: the fs-verity digest as a value, its text, and its computation from the root of the tree.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::{parse_text, write_text};
use crate::overlay::ParseDigestError;

/// A Linux fs-verity digest: SHA-256, blocks of 4 KiB, no salt. Its text is `fsverity-sha256:` and 64 lower-case
/// hexadecimal digits, in JSON too.
///
/// It is the digest that `fsverity digest --hash-alg=sha256 --block-size=4096` prints, and that the kernel reports for
/// a file that fs-verity protects. Like a SHA-256 it identifies the length and the bytes of a file. Unlike a SHA-256 it
/// can be computed on many cores, and without reading holes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerityDigest([u8; 32]);

impl VerityDigest {
    /// The digest of a file with these bytes, hashed on this thread.
    pub fn of(bytes: &[u8]) -> VerityDigest {
        super::tree::of(bytes)
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of a file of `length` bytes whose tree has this root; all zeros for an empty file.
    ///
    /// It is the SHA-256 of the kernel's `struct fsverity_descriptor` (Documentation/filesystems/fsverity.rst).
    pub(super) fn from_root(root: &[u8; 32], length: u64) -> VerityDigest {
        const VERSION: u8 = 1;
        const SHA_256: u8 = 1;
        const LOG_BLOCK_SIZE: u8 = 12;
        let mut descriptor = [0; 256];
        descriptor[..3].copy_from_slice(&[VERSION, SHA_256, LOG_BLOCK_SIZE]);
        descriptor[8..16].copy_from_slice(&length.to_le_bytes());
        descriptor[16..48].copy_from_slice(root);
        VerityDigest(Sha256::digest(descriptor).into())
    }
}

impl From<[u8; 32]> for VerityDigest {
    fn from(bytes: [u8; 32]) -> VerityDigest {
        VerityDigest(bytes)
    }
}

const PREFIX: &str = "fsverity-sha256:";

impl fmt::Display for VerityDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(f, PREFIX, &self.0)
    }
}

impl fmt::Debug for VerityDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerityDigest {
    type Err = ParseDigestError;

    /// Takes exactly what `Display` writes: `^fsverity-sha256:[a-f0-9]{64}$`, with no other case, prefix or space.
    fn from_str(text: &str) -> Result<VerityDigest, ParseDigestError> {
        parse_text(PREFIX, text).map(VerityDigest)
    }
}

impl TryFrom<String> for VerityDigest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<VerityDigest, ParseDigestError> {
        text.parse()
    }
}

impl From<VerityDigest> for String {
    fn from(digest: VerityDigest) -> String {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::Digest;

    /// The digest of an empty file according to fsverity-utils.
    const EMPTY: &str =
        "fsverity-sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95";

    #[test]
    fn the_text_parses_back_to_the_digest() {
        let digest = VerityDigest::from_root(&[0; 32], 0);
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(digest));
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{EMPTY}\""));
        assert_eq!(serde_json::from_str::<VerityDigest>(&json).unwrap(), digest);
    }

    #[test]
    fn the_two_kinds_of_digest_are_not_taken_for_each_other() {
        assert!(EMPTY.parse::<Digest>().is_err());
        let error = Digest::OF_NOTHING.to_string().parse::<VerityDigest>();
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("`fsverity-sha256:`")
        );
    }
}
