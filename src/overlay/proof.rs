//! The proof of a file's bytes: which file it is, what its digest is, what that rests on and what it took.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::{Digest, FileIdentity, VerityDigest};

/// A digest, the file that it is of, and what it rests on. The one type that travels from the file to a report.
///
/// `D` is [`Digest`], [`VerityDigest`], both of a disk as [`Digests`], or what a manifest records as [`RecordedBytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FileProof<D = Digest> {
    /// The digest of the file's bytes.
    pub digest: D,
    /// The file's length in bytes.
    pub length: u64,
    /// Which file it is. A process that has it open has a descriptor with the same identity.
    pub identity: FileIdentity,
    /// What the digest rests on.
    pub basis: Basis,
    /// What the digest took.
    pub work: Work,
    /// How long it took. In JSON as whole microseconds, `elapsed_us`.
    #[serde(rename = "elapsed_us", serialize_with = "as_micros")]
    pub elapsed: Duration,
}

impl<D> FileProof<D> {
    /// The same proof with another digest: one that follows from this, such as the SHA-256 that was recorded together
    /// with an fs-verity digest.
    pub fn with_digest<E>(self, digest: E) -> FileProof<E> {
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
    /// Whether these are the recorded bytes: the length and every digest that is known.
    pub fn is_of(&self, recorded: &RecordedBytes) -> bool {
        self.length == recorded.length
            && self.digest.sha256 == recorded.sha256
            && self
                .digest
                .fsverity
                .is_none_or(|found| found == recorded.fsverity)
    }
}

/// What a digest rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// All bytes were read through a memory map under a read lease: no process wrote to the file meanwhile.
    Mapped,
    /// All bytes were read by `pread`. If a process wrote to the file meanwhile, the digest is of bytes that were never
    /// in it at one time.
    Read,
    /// Nothing was read: a read lease has stood since the digest was taken, so no process has opened the file for
    /// writing.
    Leased,
    /// Nothing was read: the kernel checks each page that is read of the file (fs-verity).
    #[serde(rename = "fs_verity")]
    KernelVerity,
}

impl Basis {
    /// Whether the kernel vouches for bytes that were not read.
    pub fn is_vouched_for(self) -> bool {
        matches!(self, Basis::Leased | Basis::KernelVerity)
    }
}

/// What a digest took, in bytes of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Put through a hash function, each byte counted once. A SHA-256 takes the zeros of holes too, an fs-verity digest
    /// doesn't. Blocks of 4 KiB of zeros count as well, although an fs-verity digest knows their hash.
    pub hashed: u64,
    /// Reached through a memory map.
    pub mapped: u64,
    /// Reached by reading.
    pub read: u64,
    /// Not looked at: holes, or all of a file that the kernel vouches for. With the two before they make up the length
    /// of the file if it was walked through once.
    pub skipped: u64,
}

impl Work {
    /// The work of two walks over a file.
    pub(super) fn and(self, other: Work) -> Work {
        Work {
            hashed: self.hashed + other.hashed,
            mapped: self.mapped + other.mapped,
            read: self.read + other.read,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// Both digests of a disk, as they were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digests {
    /// As `sha256sum` has it.
    pub sha256: Digest,
    /// As `fsverity digest` has it; `None` where it wasn't computed.
    pub fsverity: Option<VerityDigest>,
}

/// What a manifest says of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordedBytes {
    /// Their SHA-256.
    pub sha256: Digest,
    /// Their fs-verity digest.
    pub fsverity: VerityDigest,
    /// How many they are.
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
    to.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
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
