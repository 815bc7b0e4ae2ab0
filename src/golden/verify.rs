//! [`Golden::verify`] compares every file of a golden snapshot with its manifest, without restoring it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::Serialize;

use super::files::ExpectedFile;
use super::manifest::read_bounded;
use super::{Error, Golden};
use crate::machine::{
    self, GuestMemory, MAX_CONFIG_BYTES, MAX_STATE_BYTES, Snapshot, SnapshotBytes, maps_memory,
};
use crate::overlay::{
    self, AccessPolicy, FileIdentity, ImmutableFile, Threads, VerificationLevel, open_regular,
};

/// The result of [`Golden::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GoldenVerification {
    /// Every file that was digested: the VMM's own files, the disks and their backing files, kernel and initramfs.
    pub files: Vec<VerifiedFile>,
    /// Every difference from the manifest, and the first thing in `config.json` or `state.json` that no mint writes. If
    /// this is empty, the golden snapshot is good.
    pub mismatches: Vec<ManifestMismatch>,
    /// The memory that a process needs to load the golden snapshot.
    pub memory: MemoryNeed,
}

/// The memory that a process needs to load a golden snapshot. It does not depend on the number of sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryNeed {
    /// The most memory that the sealed copy takes, in bytes: the guest's whole memory. A hole takes memory once it is
    /// read.
    pub at_most: u64,
    /// The memory that the sealed copy takes at first, in bytes: the data of `memory-ranges`, without the holes.
    pub at_first: u64,
    /// Whether fs-verity protects `memory-ranges`. If so, no sealed copy is made, and both sizes don't apply.
    pub none_with_fs_verity: bool,
}

/// A file that was digested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifiedFile {
    /// The file's field in the manifest, such as `snapshot.state`.
    pub field: String,
    /// The file's path.
    pub path: PathBuf,
    /// The file's length in bytes.
    pub length: u64,
    /// Whether the file has the length and the digests of the manifest.
    pub good: bool,
}

/// A difference from the manifest, or from what a mint writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ManifestMismatch {
    /// The field in the manifest, such as `snapshot.state.fsverity`.
    pub field: String,
    /// The expected value.
    pub expected: String,
    /// The value that was found.
    pub found: String,
}

impl Golden {
    /// Digests every file that the manifest names, kernel and initramfs too, and compares lengths and digests. A
    /// mismatch is not an error: it is listed in the result, and the next file follows. Blocks, for longer the larger
    /// the files are.
    ///
    /// # Errors
    ///
    /// - [`Error::Missing`]: a file doesn't exist or can't be read.
    /// - [`Error::Digest`]: a file can't be read, or changes while it is read.
    /// - [`Error::Refused`]: two of the files are the same file, or one is not a regular file or too large.
    pub fn verify(&self) -> Result<GoldenVerification, Error> {
        let mut files = Vec::new();
        let mut mismatches = Vec::new();
        let mut seen: Vec<(FileIdentity, PathBuf)> = Vec::new();
        for file in self.files().into_iter().chain(self.payload()) {
            let found = mismatches.len();
            let (length, identity) = file.digest(&mut mismatches)?;
            let same = seen.iter().find(|(other, _)| *other == identity);
            if let Some((_, other)) = same {
                return Err(self.same_file(&file.path, other));
            }
            seen.push((identity, file.path.clone()));
            files.push(VerifiedFile {
                field: file.field,
                path: file.path,
                length,
                good: mismatches.len() == found,
            });
        }
        self.check_snapshot(&mut mismatches)?;
        Ok(GoldenVerification {
            files,
            memory: self.memory_need()?,
            mismatches,
        })
    }

    /// Checks that `config.json` and `state.json` have only what a mint writes, independently of their digests.
    fn check_snapshot(&self, mismatches: &mut Vec<ManifestMismatch>) -> Result<(), Error> {
        let [config, state, _] = self.snapshot_files();
        let bytes = SnapshotBytes {
            config: read_bounded(&config.path, MAX_CONFIG_BYTES)?,
            state: read_bounded(&state.path, MAX_STATE_BYTES)?,
        };
        let shape = self.manifest().vm_shape();
        let folder = self.snapshot();
        let snapshot = Snapshot::new(&folder, bytes, shape, &self.disks(), GuestMemory::ByPath);
        let checked = snapshot.and_then(|snapshot| match maps_memory(&self.manifest().release) {
            true => snapshot.check_mappable().map(drop),
            false => Ok(()),
        });
        let nothing = || "nothing".to_owned();
        let mismatch = match checked {
            Ok(()) => return Ok(()),
            Err(machine::Error::SnapshotConfig {
                pointer,
                expected,
                found,
                ..
            }) => ManifestMismatch {
                field: format!("{} at {pointer}", config.field),
                expected: expected.unwrap_or_else(nothing),
                found: found.unwrap_or_else(nothing),
            },
            Err(machine::Error::Snapshot { path, reason }) => ManifestMismatch {
                field: if path == state.path {
                    state.field
                } else {
                    config.field
                },
                expected: "what a mint writes".to_owned(),
                found: reason,
            },
            Err(error) => return Err(Error::Snapshot(error)),
        };
        mismatches.push(mismatch);
        Ok(())
    }

    /// Returns the memory that a process needs to load the golden snapshot. Reads only the metadata of `memory-ranges`.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] and [`Error::Memory`] if `memory-ranges` can't be opened.
    pub fn memory_need(&self) -> Result<MemoryNeed, Error> {
        let [_, _, memory] = self.snapshot_files();
        let metadata = fs::metadata(&memory.path).map_err(|source| Error::Missing {
            path: memory.path.clone(),
            source,
        })?;
        let protected = ImmutableFile::by_fs_verity(&memory.path, &memory.fsverity);
        Ok(MemoryNeed {
            at_most: metadata.len(),
            at_first: metadata.len().min(metadata.blocks() * 512),
            none_with_fs_verity: protected.map_err(Error::Memory)?.is_some(),
        })
    }
}

impl ExpectedFile {
    /// Digests the file and adds each difference from the manifest to `mismatches`. Returns the file's length and
    /// identity.
    fn digest(&self, mismatches: &mut Vec<ManifestMismatch>) -> Result<(u64, FileIdentity), Error> {
        let mut collect = |checked: Result<(), Error>| match checked {
            Err(Error::Mismatch {
                field,
                expected,
                found,
                ..
            }) => {
                mismatches.push(ManifestMismatch {
                    field,
                    expected,
                    found,
                });
                Ok(())
            }
            checked => checked,
        };
        let (file, status) = open_regular(&self.path).map_err(|error| self.unreadable(error))?;
        let found = (status.length, status.identity);
        // A file of another length is not digested, since a file that has grown may take very long.
        if status.length != self.length {
            collect(Err(self.differs("length", &self.length, &status.length)))?;
            return Ok(found);
        }
        let policy = AccessPolicy::PreferMapped;
        let fsverity = match self.recorded() {
            Some(recorded) => {
                let level = VerificationLevel::Full;
                let proof = overlay::examine(&file, &self.path, &recorded, level, policy);
                let proof = proof.map_err(Error::Digest)?;
                collect(self.check("length", &self.length, &proof.length))?;
                collect(self.check("sha256", &recorded.sha256, &proof.digest.sha256))?;
                proof.digest.fsverity
            }
            None => {
                let threads = Threads::default();
                let proof = overlay::fsverity_of(&file, &self.path, policy, threads);
                Some(proof.map_err(Error::Digest)?.digest)
            }
        };
        if let Some(fsverity) = fsverity {
            collect(self.check("fsverity", &self.fsverity, &fsverity))?;
        }
        Ok(found)
    }
}
