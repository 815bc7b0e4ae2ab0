//! Verifying a golden snapshot at rest, in full.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::Serialize;

use super::files::Expected;
use super::manifest::read_bounded;
use super::{Error, Golden};
use crate::machine::{
    self, GuestMemory, MAX_CONFIG_BYTES, MAX_STATE_BYTES, Snapshot, SnapshotBytes, maps_memory,
};
use crate::overlay::{
    self, AccessPolicy, FileIdentity, Immutable, Threads, VerificationLevel, open_regular,
};

/// A golden snapshot all of whose files were digested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Each file, in the manifest's order.
    pub files: Vec<VerifiedFile>,
    /// What isn't what the manifest says, or what a mint makes. Empty: the golden snapshot is good.
    pub mismatches: Vec<Mismatch>,
    /// What memory its use takes.
    pub memory: MemoryNeed,
}

/// What memory a process takes that loads a golden snapshot, whatever the number of sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryNeed {
    /// The most that the sealed copy takes, in bytes: the guest's whole memory. Holes take memory once they are read.
    pub at_most: u64,
    /// What it takes at first, in bytes: the data of `memory-ranges`.
    pub at_first: u64,
    /// Whether fs-verity protects `memory-ranges`, so that no copy is made.
    pub none_with_fs_verity: bool,
}

/// A file that was digested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedFile {
    /// Where the manifest has it, as `snapshot.state`.
    pub field: String,
    /// The file.
    pub path: PathBuf,
    /// How many bytes it has.
    pub length: u64,
    /// Whether it is what the manifest says.
    pub good: bool,
}

/// Something that isn't what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Where the manifest says it, as `snapshot.state.fsverity`.
    pub field: String,
    /// What the manifest says.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Golden {
    /// Digests every file that the manifest names, kernel and initramfs too, and compares length and digests. Goes on
    /// after a mismatch, so that all of them are told. Blocks for as long as the files are large.
    ///
    /// # Errors
    ///
    /// Where it can't be decided: [`Error::Missing`] and [`Error::Digest`] for a file that can't be read or changes
    /// meanwhile. [`Error::Refused`] when two of the files are one.
    pub fn verify(&self) -> Result<Inspection, Error> {
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
        Ok(Inspection {
            files,
            memory: self.memory_need()?,
            mismatches,
        })
    }

    /// Checks that the VMM's two small files are of a VM that a mint makes, whatever their digests.
    fn check_snapshot(&self, mismatches: &mut Vec<Mismatch>) -> Result<(), Error> {
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
            }) => Mismatch {
                field: format!("{} at {pointer}", config.field),
                expected: expected.unwrap_or_else(nothing),
                found: found.unwrap_or_else(nothing),
            },
            Err(machine::Error::Snapshot { path, reason }) => Mismatch {
                field: if path == state.path {
                    state.field
                } else {
                    config.field
                },
                expected: "what a mint makes".to_owned(),
                found: reason,
            },
            Err(error) => return Err(Error::Snapshot(error)),
        };
        mismatches.push(mismatch);
        Ok(())
    }

    /// What memory its use takes. Reads nothing of the files.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] and [`Error::Memory`] for a `memory-ranges` that can't be opened.
    pub fn memory_need(&self) -> Result<MemoryNeed, Error> {
        let [_, _, memory] = self.snapshot_files();
        let metadata = fs::metadata(&memory.path).map_err(|source| Error::Missing {
            path: memory.path.clone(),
            source,
        })?;
        let protected = Immutable::by_fs_verity(&memory.path, &memory.fsverity);
        Ok(MemoryNeed {
            at_most: metadata.len(),
            at_first: metadata.len().min(metadata.blocks() * 512),
            none_with_fs_verity: protected.map_err(Error::Memory)?.is_some(),
        })
    }
}

impl Expected {
    /// Digests the file, and tells what isn't as the manifest says.
    fn digest(&self, mismatches: &mut Vec<Mismatch>) -> Result<(u64, FileIdentity), Error> {
        let mut tell = |checked: Result<(), Error>| match checked {
            Err(Error::Mismatch {
                field,
                expected,
                found,
                ..
            }) => {
                mismatches.push(Mismatch {
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
        // A length that differs needs no digest, which of a file that has grown may take for ever.
        if status.length != self.length {
            tell(Err(self.differs("length", &self.length, &status.length)))?;
            return Ok(found);
        }
        let policy = AccessPolicy::PreferMapped;
        let fsverity = match self.recorded() {
            Some(recorded) => {
                let level = VerificationLevel::Full;
                let proof = overlay::examine(&file, &self.path, &recorded, level, policy);
                let proof = proof.map_err(Error::Digest)?;
                tell(self.check("length", &self.length, &proof.length))?;
                tell(self.check("sha256", &recorded.sha256, &proof.digest.sha256))?;
                proof.digest.fsverity
            }
            None => {
                let threads = Threads::default();
                let proof = overlay::fsverity_of(&file, &self.path, policy, threads);
                Some(proof.map_err(Error::Digest)?.digest)
            }
        };
        if let Some(fsverity) = fsverity {
            tell(self.check("fsverity", &self.fsverity, &fsverity))?;
        }
        Ok(found)
    }
}
