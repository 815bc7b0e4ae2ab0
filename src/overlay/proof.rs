//! [`FileProof`]: a file's digest, the identity of the file, the basis of the digest and the work that it cost.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::{Digest, FileIdentity, VerityDigest};
use crate::duration::micros;

/// A digest, the file that it belongs to, and its basis. The same type is used from the reading of a file up to a reset
/// report.
///
/// `D` is [`Digest`], [`VerityDigest`], both digests of a disk as [`Digests`], or the entry of a manifest as
/// [`RecordedBytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FileProof<D = Digest> {
    /// The digest of the file's bytes.
    pub digest: D,
    /// The file's length in bytes.
    pub length: u64,
    /// Which file it is. A process that has it open has a descriptor with the same identity.
    pub identity: FileIdentity,
    /// How the digest was obtained.
    pub basis: Basis,
    /// The work that the digest cost.
    pub work: Work,
    /// How long it took. In JSON as whole microseconds, `elapsed_us`.
    #[serde(rename = "elapsed_us", serialize_with = "as_micros")]
    pub elapsed: Duration,
}

impl<D> FileProof<D> {
    /// Replaces the digest by one that follows from it, such as the SHA-256 that was recorded together with this
    /// fs-verity digest.
    pub(crate) fn with_digest<E>(self, digest: E) -> FileProof<E> {
        FileProof {
            digest,
            length: self.length,
            identity: self.identity,
            basis: self.basis,
            work: self.work,
            elapsed: self.elapsed,
        }
    }
}

impl FileProof<Digests> {
    /// Whether the length and every digest that was computed equal the recorded ones.
    pub fn is_of(&self, recorded: &RecordedBytes) -> bool {
        self.length == recorded.length
            && self.digest.sha256 == recorded.sha256
            && self
                .digest
                .fsverity
                .is_none_or(|found| found == recorded.fsverity)
    }
}

/// How a digest was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Basis {
    /// All bytes were read through a memory map under a read lease: no process wrote to the file during the reading.
    Mapped,
    /// All bytes were read by `pread`. If a process wrote to the file during the reading, the digest may be of a
    /// mixture of old and new bytes.
    Read,
    /// Nothing was read: a read lease has been held since the digest was taken, so no process has opened the file for
    /// writing.
    Leased,
    /// Nothing was read: the kernel checks each page that is read from the file against the digest (fs-verity).
    #[serde(rename = "fs_verity")]
    KernelVerity,
}

impl Basis {
    /// Whether the bytes were not read because the kernel guarantees that they are unchanged.
    pub fn is_vouched_for(self) -> bool {
        matches!(self, Basis::Leased | Basis::KernelVerity)
    }
}

/// The work for a digest, in bytes of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Bytes that were hashed, each counted once. A SHA-256 hashes the zeros of holes too, an fs-verity digest doesn't.
    /// Blocks of 4 KiB of zeros outside holes are counted, although their fs-verity hash is known in advance.
    pub hashed: u64,
    /// Bytes that were read through a memory map.
    pub mapped: u64,
    /// Bytes that were read with `pread`.
    pub read: u64,
    /// Bytes that were not read: holes, or a whole file whose bytes the kernel guarantees. After one pass over a file,
    /// `mapped`, `read` and `skipped` add up to its length.
    pub skipped: u64,
}

impl Work {
    /// Adds the work of two passes over a file.
    pub(super) fn and(self, other: Work) -> Work {
        Work {
            hashed: self.hashed + other.hashed,
            mapped: self.mapped + other.mapped,
            read: self.read + other.read,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// Both digests of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Digests {
    /// The digest that `sha256sum` prints.
    pub sha256: Digest,
    /// The digest that `fsverity digest` prints; `None` if it wasn't computed.
    pub fsverity: Option<VerityDigest>,
}

/// The length and digests of a file as a manifest records them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecordedBytes {
    /// The SHA-256 of the file's bytes.
    pub sha256: Digest,
    /// The fs-verity digest of the file's bytes.
    pub fsverity: VerityDigest,
    /// The file's length in bytes.
    pub length: u64,
}

impl From<&RecordedBytes> for Digests {
    fn from(recorded: &RecordedBytes) -> Digests {
        Digests {
            sha256: recorded.sha256,
            fsverity: Some(recorded.fsverity),
        }
    }
}

fn as_micros<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(micros(*duration))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_names_in_json_are_fixed() {
        let proof = FileProof {
            digest: Digests {
                sha256: Digest::OF_NOTHING,
                fsverity: None,
            },
            length: 7,
            identity: FileIdentity {
                device: 1,
                inode: 2,
            },
            basis: Basis::KernelVerity,
            work: Work {
                skipped: 7,
                ..Work::default()
            },
            elapsed: Duration::from_nanos(2_999),
        };
        let expected = json!({
            "digest": { "sha256": Digest::OF_NOTHING, "fsverity": null },
            "length": 7,
            "identity": { "device": 1, "inode": 2 },
            "basis": "fs_verity",
            "work": { "hashed": 0, "mapped": 0, "read": 0, "skipped": 7 },
            "elapsed_us": 2,
        });
        assert_eq!(serde_json::to_value(proof).unwrap(), expected);
        let names = [Basis::Mapped, Basis::Read, Basis::Leased].map(|basis| json!(basis));
        assert_eq!(names, ["mapped", "read", "leased"]);
    }

    #[test]
    fn only_what_was_not_read_is_vouched_for() {
        let vouched = [
            Basis::Mapped,
            Basis::Read,
            Basis::Leased,
            Basis::KernelVerity,
        ]
        .map(Basis::is_vouched_for);
        assert_eq!(vouched, [false, false, true, true]);
    }
}
