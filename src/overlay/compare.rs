//! Compares an open file with recorded digests ([`examine`]).

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::file::FileStatus;
use super::hash::Opened;
use super::read::{ReadError, read_padded};
use super::stream::Stream;
use super::{AccessPolicy, Digests, Error, FileProof, RecordedBytes, Threads, VerityDigest, Work};

/// Which digests of a disk are computed for its proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationLevel {
    /// Only the fs-verity digest is computed; where it matches, the SHA-256 that was recorded with it is reported. A
    /// file that the kernel guarantees to be unchanged (see [`Basis::is_vouched_for`](super::Basis::is_vouched_for)) is
    /// not read.
    #[default]
    Fast,
    /// Both digests of every disk are computed, even where the kernel guarantees that the file is unchanged.
    Full,
}

/// Compares `file`, which is open for reading, with the recorded length and digests, and returns a proof of what the
/// file holds. `name` is its name in errors.
///
/// A file that differs, is truncated, grows or changes during the call is not an error. The call returns a proof for
/// which [`FileProof::is_of`] is false:
///
/// - The length is compared before anything is hashed. If it differs, the proof has the file's own length, `fsverity`
///   is `None`, and the SHA-256 covers the file's first bytes: at most one byte more than the recorded length. The same
///   holds if the length changes while the file is read; bytes that are missing by then count as zeros. That SHA-256 is
///   never the recorded one.
/// - If the fs-verity digest differs, the proof has the digest that was found, and the SHA-256 is computed in a second
///   pass. If a process restored the bytes between the two passes, the SHA-256 may be the recorded one, but the
///   fs-verity digest still differs.
///
/// `work` is the sum over all passes. Blocks for a time that grows with the recorded length.
///
/// # Errors
///
/// [`Error::Io`] for a file that can't be read, and [`Error::NotRegular`].
pub fn examine(
    file: &File,
    name: &Path,
    recorded: &RecordedBytes,
    level: VerificationLevel,
    policy: AccessPolicy,
) -> Result<FileProof<Digests>, Error> {
    let started = Instant::now();
    let status = FileStatus::of(file, name)?;
    let differing = |length, fsverity, work| {
        let status = FileStatus { length, ..status };
        let found = Found {
            status,
            fsverity,
            work,
        };
        let proof = found.prove(file, recorded, started);
        proof.map_err(Error::io("read", name))
    };
    if status.length != recorded.length {
        return differing(status.length, None, Work::default());
    }
    let opened = Opened::new(file, status, policy);
    let proof = match level {
        VerificationLevel::Fast => match opened.fsverity(Threads::default()) {
            Ok(proof) if proof.digest != recorded.fsverity => {
                return differing(proof.length, Some(proof.digest), proof.work);
            }
            Ok(proof) => Ok(proof.with_digest(Digests::from(recorded))),
            Err(error) => Err(error),
        },
        VerificationLevel::Full => opened
            .both()
            .map(|proof| proof.with_digest(Digests::from(&proof.digest))),
    };
    match proof {
        Ok(proof) => Ok(proof),
        Err(ReadError::Length { found }) => differing(found, None, Work::default()),
        Err(error) => Err(error.of(name, status.length)),
    }
}

/// The results so far for a file that differs from the record.
struct Found {
    status: FileStatus,
    fsverity: Option<VerityDigest>,
    work: Work,
}

impl Found {
    /// Computes the SHA-256 of at most one byte more than the recorded length, and makes the proof.
    fn prove(
        self,
        file: &File,
        recorded: &RecordedBytes,
        started: Instant,
    ) -> std::io::Result<FileProof<Digests>> {
        let FileStatus { identity, length } = self.status;
        let bound = length.min(recorded.length.saturating_add(1));
        let whole = read_padded(file, bound, Stream::default())?;
        let work = Work {
            hashed: bound,
            ..whole.work
        };
        Ok(FileProof {
            digest: Digests {
                sha256: whole.sink.finish(),
                fsverity: self.fsverity,
            },
            length,
            identity,
            basis: whole.basis,
            work: self.work.and(work),
            elapsed: started.elapsed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;
    use crate::overlay::read::test_events;
    use crate::overlay::{Basis, Digest};

    const LEVELS: [VerificationLevel; 2] = [VerificationLevel::Fast, VerificationLevel::Full];

    /// A file with recorded bytes, and a second descriptor that is open for writing.
    struct Disk {
        _directory: TempDir,
        path: PathBuf,
        bytes: Vec<u8>,
        writer: File,
    }

    impl Disk {
        fn new(bytes: Vec<u8>) -> Disk {
            Disk::at(tempfile::tempdir().unwrap(), bytes)
        }

        fn at(directory: TempDir, bytes: Vec<u8>) -> Disk {
            let path = directory.path().join("disk");
            fs::write(&path, &bytes).unwrap();
            let writer = OpenOptions::new().write(true).open(&path).unwrap();
            Disk {
                _directory: directory,
                path,
                bytes,
                writer,
            }
        }

        fn recorded(&self) -> RecordedBytes {
            RecordedBytes {
                sha256: Digest::of(&self.bytes),
                fsverity: VerityDigest::of(&self.bytes),
                length: self.bytes.len() as u64,
            }
        }

        fn examine(&self, level: VerificationLevel) -> FileProof<Digests> {
            let file = File::open(&self.path).unwrap();
            let policy = AccessPolicy::ReadOnly;
            examine(&file, &self.path, &self.recorded(), level, policy).unwrap()
        }

        /// Examines the file, and asserts that the proof is not of the recorded bytes.
        #[track_caller]
        fn differs(&self, level: VerificationLevel) -> FileProof<Digests> {
            let proof = self.examine(level);
            test_events::assert_happened();
            assert!(!proof.is_of(&self.recorded()), "{proof:?}");
            proof
        }

        fn file(&self) -> File {
            self.writer.try_clone().unwrap()
        }
    }

    fn noise(length: usize) -> Vec<u8> {
        (0..length as u32).map(|i| (i / 7) as u8 | 1).collect()
    }

    #[test]
    fn the_recorded_bytes_are_proved_at_every_length() {
        const PAGE: usize = 4096;
        const SEGMENT: usize = 512 << 10;
        let around = |size: usize| [size - 1, size, size + 1];
        let lengths = [[0, 1, 2], around(PAGE), around(SEGMENT)];
        for length in lengths.concat() {
            let disk = Disk::new(noise(length));
            let identity = FileStatus::of(&disk.writer, &disk.path).unwrap().identity;
            for level in LEVELS {
                let proof = disk.examine(level);
                assert!(proof.is_of(&disk.recorded()), "{length}, {level:?}");
                assert_eq!(proof.digest, Digests::from(&disk.recorded()));
                assert_eq!((proof.length, proof.identity), (length as u64, identity));
                assert_eq!(
                    (proof.basis, proof.work.hashed),
                    (Basis::Read, length as u64)
                );
            }
        }
    }

    #[test]
    fn holes_are_zeros_and_not_read() {
        let Some(directory) = crate::overlay::filesystem::known_directory() else {
            return;
        };
        let mut bytes = vec![0; 2 << 20];
        bytes[1 << 20] = 1;
        let disk = Disk::at(directory, bytes);
        disk.writer.set_len(0).unwrap();
        disk.writer.set_len(2 << 20).unwrap();
        disk.writer.write_all_at(&[1], 1 << 20).unwrap();
        for level in LEVELS {
            let proof = disk.examine(level);
            assert!(proof.is_of(&disk.recorded()));
            assert!(proof.work.read <= 64 << 10, "{proof:?}");
        }
        // A hole in place of data is a difference like any other.
        disk.writer.set_len(0).unwrap();
        disk.writer.set_len(2 << 20).unwrap();
        let zeros = vec![0; 2 << 20];
        for level in LEVELS {
            let digest = disk.differs(level).digest;
            assert_eq!(digest.sha256, Digest::of(&zeros));
            assert_eq!(digest.fsverity, Some(VerityDigest::of(&zeros)));
        }
    }

    #[test]
    fn other_bytes_are_told_by_both_digests() {
        for at in [0, 4095, 4096, 9_999] {
            let disk = Disk::new(noise(10_000));
            let mut bytes = noise(10_000);
            bytes[at] ^= 1;
            disk.writer.write_all_at(&bytes, 0).unwrap();
            for level in LEVELS {
                let proof = disk.differs(level);
                assert_eq!(proof.digest.sha256, Digest::of(&bytes));
                assert_eq!(proof.digest.fsverity, Some(VerityDigest::of(&bytes)));
                assert_eq!(proof.length, 10_000);
            }
        }
    }

    #[test]
    fn another_length_is_told_and_no_more_than_one_byte_beyond_is_read() {
        let mut directories = vec![tempfile::tempdir().unwrap()];
        directories.extend(tempfile::tempdir_in("/dev/shm"));
        for directory in directories {
            let disk = Disk::at(directory, noise(10_000));
            let lengths = [0, 1, 4096, 9_999, 10_001, 1 << 32, 1 << 43, i64::MAX as u64];
            for length in lengths {
                disk.writer.set_len(0).unwrap();
                // Some filesystems don't support the largest of these lengths.
                if disk.writer.set_len(length).is_err() {
                    continue;
                }
                let kept = &disk.bytes[..disk.bytes.len().min(length as usize)];
                disk.writer.write_all_at(kept, 0).unwrap();
                let mut expected = kept.to_vec();
                expected.resize(length.min(10_001) as usize, 0);
                for level in LEVELS {
                    let proof = disk.differs(level);
                    assert_eq!(proof.length, length);
                    assert_eq!(proof.digest.sha256, Digest::of(&expected), "{length}");
                    assert_eq!(proof.digest.fsverity, None);
                    assert_eq!(proof.work.hashed, expected.len() as u64);
                }
            }
        }
    }

    #[test]
    fn a_length_that_changes_while_it_is_read_is_a_difference() {
        for (length, found) in [
            (0, 0),
            (4096, 4096),
            (9_999, 9_999),
            (10_001, 10_001),
            (1 << 40, 1 << 40),
        ] {
            for level in LEVELS {
                let disk = Disk::new(noise(10_000));
                let file = disk.file();
                test_events::schedule(0, move || file.set_len(length).unwrap());
                let proof = disk.differs(level);
                assert_eq!((proof.length, proof.digest.fsverity), (found, None));
                let mut expected = noise(10_000);
                expected.resize(found.min(10_001) as usize, 0);
                assert_eq!(proof.digest.sha256, Digest::of(&expected));
            }
        }
    }

    #[test]
    fn a_length_that_is_put_back_in_between_is_a_difference() {
        for level in LEVELS {
            // The file is truncated before its bytes are read, and has the old length again when the length is read.
            let disk = Disk::new(noise(10_000));
            let (cut, grow) = (disk.file(), disk.file());
            test_events::schedule(0, move || cut.set_len(5_000).unwrap());
            test_events::schedule(0, move || grow.set_len(10_000).unwrap());
            let proof = disk.differs(level);
            assert_eq!(proof.length, 5_000);
            assert_eq!(proof.digest.sha256, Digest::of(&noise(5_000)));
            // The file is one byte too long at first, and has the recorded bytes when they are hashed.
            disk.writer.write_all_at(&noise(10_001), 0).unwrap();
            let cut = disk.file();
            test_events::schedule(0, move || cut.set_len(10_000).unwrap());
            let proof = disk.differs(level);
            assert_eq!(proof.length, 10_001);
            assert_ne!(proof.digest.sha256, disk.recorded().sha256);
        }
    }

    #[test]
    fn bytes_that_are_put_back_in_between_are_a_difference() {
        let disk = Disk::new(noise(10_000));
        let mut forged = noise(10_000);
        forged[77] ^= 1;
        let (forger, keeper) = (disk.file(), disk.file());
        let other = forged.clone();
        test_events::schedule(0, move || forger.write_all_at(&other, 0).unwrap());
        test_events::schedule(0, move || keeper.write_all_at(&noise(10_000), 0).unwrap());
        let proof = disk.differs(VerificationLevel::Fast);
        assert_eq!(proof.digest.fsverity, Some(VerityDigest::of(&forged)));
        assert_eq!(proof.digest.sha256, disk.recorded().sha256);
        assert_eq!(proof.work.hashed, 20_000, "both passes count");
    }

    #[test]
    fn anything_but_a_regular_file_is_an_error() {
        let disk = Disk::new(noise(7));
        let directory = File::open(disk.path.parent().unwrap()).unwrap();
        for level in LEVELS {
            let name = Path::new("directory");
            let policy = AccessPolicy::PreferMapped;
            let error = examine(&directory, name, &disk.recorded(), level, policy);
            let error = error.unwrap_err();
            assert!(matches!(error, Error::NotRegular { .. }), "{error}");
        }
    }
}
