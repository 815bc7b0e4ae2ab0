//! The proof of the disks: their bytes, and that the VMM serves these very files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk::WorkingDisk;
use super::{DiskReading, DiskRole, Error, Machine, VmmFile};
use crate::overlay::{AccessPolicy, Digest, FileIdentity, Hashed};
use crate::vmm::OpenFile;

/// How much of a disk's proof is computed anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// The fs-verity digest answers for the SHA-256 that was recorded with it. A digest that was taken of a disk at
    /// rest stands for as long as the file's identity, size and timestamps do.
    #[default]
    Fast,
    /// The SHA-256 of every disk is computed while the VM is paused, whatever was known before.
    Full,
}

/// What is known of a disk's bytes beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownDisk {
    /// Which disk.
    pub role: DiskRole,
    /// The SHA-256 that was recorded.
    pub sha256: Digest,
    /// The length that was recorded, in bytes.
    pub length: u64,
}

/// When the bytes of a disk were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskProof {
    /// While the VM was paused after its restore.
    Paused,
    /// At rest, before a VMM that never ran a guest opened it. Identity, size and timestamps are the same since.
    AtRest,
}

/// What of a file's attributes must stay the same for a digest to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    identity: FileIdentity,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        let metadata = fs::metadata(path);
        let metadata = metadata.map_err(Error::file("read the attributes of", path))?;
        Ok(Stamp {
            identity: FileIdentity::from(&metadata),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// A digest that was taken before the VMM opened the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtRest {
    hashed: Hashed,
    stamp: Stamp,
}

impl AtRest {
    /// Digests `disk`, which no VMM has open for writing.
    pub(super) async fn take(disk: &WorkingDisk) -> Result<Self, Error> {
        // Before the digest: what changes from here on shows.
        let stamp = Stamp::of(&disk.path)?;
        let hashed = disk.hash(AccessPolicy::PreferMapped).await?;
        Ok(AtRest { hashed, stamp })
    }

    fn stands(&self, disk: &WorkingDisk) -> Result<bool, Error> {
        Ok(Stamp::of(&disk.path)? == self.stamp)
    }
}

impl Machine {
    /// Reads every disk of the paused VM: its digest, by what was found at rest where that still stands, and whether
    /// the VMM has that very file open.
    pub(super) async fn prove_disks(
        &self,
        at_rest: &[Option<AtRest>],
        verification: Verification,
    ) -> Result<Vec<DiskReading>, Error> {
        let open = match self.vmm.process() {
            Some(process) => Some(process.open_files().map_err(Error::OpenFiles)?),
            None => None,
        };
        let mut readings = Vec::with_capacity(self.disks.len());
        for (disk, at_rest) in self.disks.iter().zip(at_rest) {
            let standing = match at_rest {
                Some(at_rest) if verification == Verification::Fast => {
                    at_rest.stands(disk)?.then_some(at_rest.hashed)
                }
                _ => None,
            };
            let (hashed, proof) = match standing {
                Some(hashed) => (hashed, DiskProof::AtRest),
                None => {
                    let hashed = disk.hash(AccessPolicy::ReadOnly).await?;
                    (hashed, DiskProof::Paused)
                }
            };
            readings.push(DiskReading {
                role: disk.role,
                digest: hashed.digest,
                length: hashed.length,
                access: hashed.access,
                elapsed: hashed.elapsed,
                proof,
                vmm_file: vmm_file(open.as_deref(), &hashed),
            });
        }
        Ok(readings)
    }
}

fn vmm_file(open: Option<&[OpenFile]>, hashed: &Hashed) -> VmmFile {
    let identity = hashed.identity;
    match open {
        None => VmmFile::NotApplicable,
        Some(open) => {
            let same =
                |file: &OpenFile| file.device == identity.device && file.inode == identity.inode;
            match open.iter().any(same) {
                true => VmmFile::Same,
                false => VmmFile::NotOpen(identity),
            }
        }
    }
}
