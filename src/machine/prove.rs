//! The proof of the disks: their bytes, and that the VMM has opened these very files.
//!
//! Each is proved by an open file, never by a path or a time: the bytes are digested while the VM is paused, unless a lease
//! or fs-verity vouches for them, and the VMM's own descriptors have to show the same device and inode. The descriptors
//! that the VMM inherited prove nothing, since it has them whether or not it opened them for its VM.

use std::fs::File;

use serde::Serialize;

use super::disk::WorkingDisk;
use super::readings::blocking;
use super::{DiskRole, Error, Machine};
use crate::client::Release;
use crate::overlay::{
    self, AccessPolicy, Digests, FileIdentity, FileProof, RecordedBytes, VerificationLevel,
};

/// The first release of which it was seen that a VMM locks the disks that it opens.
const LOCKS_DISKS: Release = Release::new(51, 0);

/// What is known of a disk beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordedDisk {
    /// Which disk.
    pub role: DiskRole,
    /// What its bytes have to be.
    pub bytes: RecordedBytes,
    /// The proof of a read-only disk that is held, so that no process can have opened it for writing since.
    pub held: Option<FileProof<Digests>>,
}

/// One disk as it was found after a revert.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DiskProof {
    /// Which disk.
    pub role: DiskRole,
    /// Its bytes.
    #[serde(flatten)]
    pub bytes: FileProof<Digests>,
    /// Whether the VMM has opened that file.
    pub open_in_vmm: OpenInVmm,
}

/// Whether the VMM has opened the file that was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenInVmm {
    /// One of its descriptors that it didn't inherit is of this device and inode, and has a lock on it if the disk is
    /// writable (v51.0 and later). The same, without a lock, holds for each file that a qcow2 image lies upon.
    Yes,
    /// It has not: what it serves to the guest is something else.
    No,
    /// There is no process to look into.
    NotApplicable,
}

impl Machine {
    /// Proves every disk of the paused VM.
    pub(super) async fn prove_disks(
        &self,
        level: VerificationLevel,
        recorded: &[RecordedDisk],
    ) -> Result<Vec<DiskProof>, Error> {
        let mut proofs = Vec::with_capacity(self.disks.len());
        for disk in &self.disks {
            let recorded = recorded.iter().find(|it| it.role == disk.role());
            let bytes = prove(disk, level, recorded).await?;
            proofs.push(DiskProof {
                role: disk.role(),
                bytes,
                open_in_vmm: OpenInVmm::NotApplicable,
            });
        }
        if let Some(process) = self.vmm.process() {
            let mut files: Vec<_> = self.disks.iter().flat_map(beneath).collect();
            files.extend(proofs.iter().map(|proof| proof.bytes.identity));
            let wanted = |device, inode| files.contains(&FileIdentity { device, inode });
            let mut open = process.open_files_of(wanted).map_err(Error::OpenFiles)?;
            open.retain(|file| !self.inherited.contains(&file.fd));
            let locks_disks = self.release().await? >= LOCKS_DISKS;
            for (disk, proof) in self.disks.iter().zip(&mut proofs) {
                let opened = |identity: FileIdentity, readonly: bool| {
                    open.iter().any(|file| {
                        (file.device, file.inode) == (identity.device, identity.inode)
                            && (readonly || file.writable && (file.locked || !locks_disks))
                    })
                };
                let image = opened(proof.bytes.identity, disk.given.readonly);
                proof.open_in_vmm = match image && beneath(disk).all(|file| opened(file, true)) {
                    true => OpenInVmm::Yes,
                    false => OpenInVmm::No,
                };
            }
        }
        Ok(proofs)
    }
}

fn beneath(disk: &WorkingDisk) -> impl Iterator<Item = FileIdentity> {
    disk.backing.iter().map(|member| member.identity)
}

async fn prove(
    disk: &WorkingDisk,
    level: VerificationLevel,
    recorded: Option<&RecordedDisk>,
) -> Result<FileProof<Digests>, Error> {
    let role = disk.role();
    let (open, path) = (disk.opener(), disk.path());
    let recorded = recorded.copied();
    // A VMM has a writable disk open, so no lease is to be had on it.
    let access = match disk.given.readonly {
        true => AccessPolicy::PreferMapped,
        false => AccessPolicy::ReadOnly,
    };
    blocking(move || {
        let file = open()?;
        let held = recorded.and_then(|it| it.held);
        if level == VerificationLevel::Fast
            && let Some(held) = held
            && identity(&file, &path)? == held.identity
        {
            return Ok(held);
        }
        let found = match recorded {
            Some(it) => overlay::examine(&file, &path, &it.bytes, level, access),
            None => overlay::sha256_of(&file, &path, access).map(|proof| {
                proof.with_digest(Digests {
                    sha256: proof.digest,
                    fsverity: None,
                })
            }),
        };
        found.map_err(|source| Error::Disk { role, source })
    })
    .await
}

fn identity(file: &File, path: &std::path::Path) -> Result<FileIdentity, Error> {
    let metadata = file.metadata();
    let metadata = metadata.map_err(Error::file("read the attributes of", path))?;
    Ok(FileIdentity::from(&metadata))
}
