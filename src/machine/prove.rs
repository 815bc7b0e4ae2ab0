//! The proof of the disks: their bytes, and that the VMM serves these very files.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk::WorkingDisk;
use super::{DiskReading, DiskRole, Error, Machine, RevertOptions, VmmFile};
use crate::overlay::{
    Access, AccessPolicy, Digest, FileIdentity, Hashed, HoldKind, Stamp, VerityDigest, Work,
};
use crate::vmm::OpenFile;

/// How much of a disk's proof is computed anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationLevel {
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
    /// The fs-verity digest that was recorded in the same pass.
    pub fsverity: VerityDigest,
    /// The length that was recorded, in bytes.
    pub length: u64,
    /// The file, if it is held, and by what: it had these digests, and no process can have opened it for writing since.
    pub held: Option<(FileIdentity, HoldKind)>,
}

/// When the bytes of a disk were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskProof {
    /// While the VM was paused after its restore.
    Paused,
    /// At rest, before a VMM that never ran a guest opened it. Identity, size and timestamps are the same since.
    AtRest,
    /// When a read lease was taken on the file, which has stood ever since. Nothing was read for this reset.
    Leased,
    /// The kernel checks each page that is read of the file (fs-verity). Nothing was read for this reset.
    FsVerity,
}

impl DiskProof {
    /// Whether something vouches for bytes that were not read.
    pub fn is_vouched_for(self) -> bool {
        matches!(self, DiskProof::Leased | DiskProof::FsVerity)
    }
}

impl From<HoldKind> for DiskProof {
    fn from(kind: HoldKind) -> Self {
        match kind {
            HoldKind::KernelVerity => DiskProof::FsVerity,
            HoldKind::Leased | HoldKind::Unleased => DiskProof::Leased,
        }
    }
}

/// A disk's bytes as they were found.
#[derive(Clone, Copy, Debug)]
struct Found {
    sha256: Digest,
    fsverity: Option<VerityDigest>,
    length: u64,
    identity: FileIdentity,
    access: Option<Access>,
    work: Work,
    elapsed: Duration,
}

impl Found {
    /// Digests `disk`: by fs-verity where that answers for the SHA-256 that is known. One that disagrees doesn't, so the
    /// SHA-256 of what is there is computed then.
    async fn now(
        disk: &WorkingDisk,
        known: Option<&KnownDisk>,
        access: AccessPolicy,
    ) -> Result<Self, Error> {
        let Some(known) = known else {
            return Ok(Found::computed(disk.hash(access).await?, None));
        };
        let hashed = disk.hash_verity(access).await?;
        if (hashed.digest, hashed.length) != (known.fsverity, known.length) {
            let sha256 = disk.hash(access).await?;
            return Ok(Found::computed(sha256, Some(hashed.digest)));
        }
        Ok(Found {
            sha256: known.sha256,
            fsverity: Some(hashed.digest),
            length: hashed.length,
            identity: hashed.identity,
            access: Some(hashed.access),
            work: hashed.work,
            elapsed: hashed.elapsed,
        })
    }

    fn computed(hashed: Hashed, fsverity: Option<VerityDigest>) -> Self {
        Found {
            sha256: hashed.digest,
            fsverity,
            length: hashed.length,
            identity: hashed.identity,
            access: Some(hashed.access),
            work: hashed.work,
            elapsed: hashed.elapsed,
        }
    }

    fn held(known: &KnownDisk, identity: FileIdentity) -> Self {
        Found {
            sha256: known.sha256,
            fsverity: Some(known.fsverity),
            length: known.length,
            identity,
            access: None,
            work: Work {
                skipped: known.length,
                ..Work::default()
            },
            elapsed: Duration::ZERO,
        }
    }
}

/// What of the disk's attributes must stay the same for a digest to stand.
fn stamp(disk: &WorkingDisk) -> Result<Stamp, Error> {
    let metadata = fs::metadata(&disk.path);
    let metadata = metadata.map_err(Error::file("read the attributes of", disk.path.as_path()))?;
    Ok(Stamp::from(&metadata))
}

/// A disk's bytes as they were before the VMM opened it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtRest {
    found: Found,
    stamp: Stamp,
    proof: DiskProof,
}

impl AtRest {
    /// Digests `disk`, which no VMM has open for writing, unless it is held.
    pub(super) async fn take(disk: &WorkingDisk, options: &RevertOptions) -> Result<Self, Error> {
        // Before the digest: what changes from here on shows.
        let stamp = stamp(disk)?;
        let known = options.known(disk.role);
        if let Some(known) = known
            && let Some((identity, kind)) = known.held
            && identity == stamp.identity
        {
            return Ok(AtRest {
                found: Found::held(known, stamp.identity),
                stamp,
                proof: kind.into(),
            });
        }
        let found = Found::now(disk, known, AccessPolicy::PreferMapped).await?;
        Ok(AtRest {
            found,
            stamp,
            proof: DiskProof::AtRest,
        })
    }

    /// Whether the disk was left as it was since, as far as its attributes say.
    pub(super) fn is_unchanged(&self, disk: &WorkingDisk) -> Result<bool, Error> {
        Ok(stamp(disk)? == self.stamp)
    }

    fn stands(&self, disk: &WorkingDisk, options: &RevertOptions) -> Result<bool, Error> {
        let known = options.known(disk.role);
        let held = known.and_then(|known| known.held);
        let held = held.is_some_and(|(identity, _)| identity == self.stamp.identity);
        Ok(self.is_unchanged(disk)? && (held || !self.proof.is_vouched_for()))
    }
}

impl RevertOptions {
    /// What is known of the disk, unless everything is computed anew.
    fn known(&self, role: DiskRole) -> Option<&KnownDisk> {
        match self.verification {
            VerificationLevel::Fast => self.disks.iter().find(|known| known.role == role),
            VerificationLevel::Full => None,
        }
    }
}

impl Machine {
    /// Reads every disk of the paused VM: its digest, by what was found at rest where that still stands, and whether
    /// the VMM has that very file open.
    pub(super) async fn prove_disks(
        &self,
        at_rest: &[Option<AtRest>],
        options: &RevertOptions,
    ) -> Result<Vec<DiskReading>, Error> {
        let open = match self.vmm.process() {
            Some(process) => Some(process.open_files().map_err(Error::OpenFiles)?),
            None => None,
        };
        let mut readings = Vec::with_capacity(self.disks.len());
        for (disk, at_rest) in self.disks.iter().zip(at_rest) {
            let standing = match at_rest {
                Some(at_rest) if options.verification == VerificationLevel::Fast => {
                    at_rest.stands(disk, options)?.then_some(at_rest)
                }
                _ => None,
            };
            let (found, proof) = match standing {
                Some(at_rest) => (at_rest.found, at_rest.proof),
                None => {
                    let known = options.known(disk.role);
                    let found = Found::now(disk, known, AccessPolicy::ReadOnly).await?;
                    (found, DiskProof::Paused)
                }
            };
            readings.push(DiskReading {
                role: disk.role,
                digest: found.sha256,
                fsverity: found.fsverity,
                length: found.length,
                access: found.access,
                work: found.work,
                elapsed: found.elapsed,
                proof,
                vmm_file: vmm_file(open.as_deref(), found.identity),
            });
        }
        Ok(readings)
    }
}

fn vmm_file(open: Option<&[OpenFile]>, identity: FileIdentity) -> VmmFile {
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
