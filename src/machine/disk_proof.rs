//! Proves the disks of a paused VM: the bytes of their files ([`DiskProof`]), and that the VMM has opened these very
//! files ([`OpenInVmm`]).
//!
//! The proof rests on open files, never on a path or a timestamp. The bytes are digested while the VM is paused, unless
//! a lease or fs-verity proves that they are unchanged. A descriptor that the VMM has opened itself must have the same
//! device and inode. A descriptor that the VMM inherited proves nothing, since the VMM has it whether or not its VM
//! uses it.

use std::fs::File;
use std::ops::ControlFlow;

use serde::Serialize;

use super::disk::WorkingDisk;
use super::readings::Steps;
use super::{DiskRole, Error, Machine, RevertOptions};
use crate::client::Release;
use crate::offload::blocking;
use crate::overlay::{
    self, AccessPolicy, Digests, FileIdentity, FileProof, RecordedBytes, VerificationLevel,
};
use crate::vmm::OpenFile;

/// The first release on which a VMM was seen to lock the disks that it opens.
const LOCKS_DISKS: Release = Release::new(51, 0);

/// The recorded length and digests of a disk, with which its bytes are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordedDisk {
    /// The role of the disk.
    pub role: DiskRole,
    /// The length and digests that the disk should have.
    pub bytes: RecordedBytes,
    /// The proof of a read-only disk that is held, so that no process can have opened it for writing since the proof.
    pub held: Option<FileProof<Digests>>,
}

/// One disk as it was found after a revert.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DiskProof {
    /// The role of the disk.
    pub role: DiskRole,
    /// The identity and digests of the disk's file.
    #[serde(flatten)]
    pub bytes: FileProof<Digests>,
    /// Whether the VMM has opened this file.
    pub open_in_vmm: OpenInVmm,
}

/// Whether the VMM has opened the file that was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OpenInVmm {
    /// The VMM has a descriptor of this device and inode that it did not inherit. For a writable disk, that descriptor
    /// also holds a lock (v51.0 and later). The VMM also has such a descriptor, without a lock, for each backing file
    /// of a qcow2 image.
    Yes,
    /// The VMM has no such descriptor, so it serves another file to the guest.
    No,
    /// Another program runs the VMM, so its process can't be examined.
    NotApplicable,
}

impl Machine {
    /// Proves every disk of the paused VM.
    pub(super) async fn prove_disks(
        &mut self,
        options: &RevertOptions,
        steps: &mut Steps,
    ) -> Result<Vec<DiskProof>, Error> {
        let mut proving = Vec::with_capacity(self.disks.len());
        for disk in &self.disks {
            let recorded = options.disks.iter().find(|it| it.role == disk.role());
            proving.push(prove(disk, options.verification, recorded.copied()));
        }
        let prove_all = move || {
            let proofs = proving.into_iter().map(|prove| prove());
            proofs.collect::<Result<Vec<_>, _>>()
        };
        let mut proofs = blocking(prove_all).await?;
        steps.end("digest");
        if self.vmm.process().is_some() {
            self.find_open_in_vmm(&mut proofs).await?;
            steps.end("open_files");
        }
        Ok(proofs)
    }

    /// Searches the proved files among the files that the VMM has opened itself.
    async fn find_open_in_vmm(&mut self, proofs: &mut [DiskProof]) -> Result<(), Error> {
        let Some(process) = self.vmm.process() else {
            return Ok(());
        };
        let locks_disks = self.release().await? >= LOCKS_DISKS;
        let mut missing: Vec<Missing> = Vec::new();
        for (disk, proof) in self.disks.iter().zip(proofs.iter()) {
            let (role, readonly) = (disk.role(), disk.given.readonly);
            let mut add = |identity, readonly| {
                missing.push(Missing {
                    role,
                    identity,
                    readonly,
                })
            };
            add(proof.bytes.identity, readonly);
            backing_identities(disk).for_each(|identity| add(identity, true));
        }
        let identities: Vec<FileIdentity> = missing.iter().map(|file| file.identity).collect();
        let wanted = |device, inode| identities.contains(&FileIdentity { device, inode });
        let mut found_at = Vec::with_capacity(missing.len());
        let look = |file: OpenFile| {
            let before = missing.len();
            if !self.inherited.contains(&file.fd) {
                missing.retain(|missing| !missing.is(&file, locks_disks));
            }
            if missing.len() < before {
                found_at.push(file.fd);
            }
            match missing.is_empty() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let looked = process.look_at_open_files(&self.disks_found_at, wanted, look);
        looked.map_err(Error::OpenFiles)?;
        for proof in proofs {
            proof.open_in_vmm = match missing.iter().any(|file| file.role == proof.role) {
                true => OpenInVmm::No,
                false => OpenInVmm::Yes,
            };
        }
        self.disks_found_at = found_at;
        Ok(())
    }
}

/// A file that the VMM should have opened, and that was not found yet.
struct Missing {
    role: DiskRole,
    identity: FileIdentity,
    readonly: bool,
}

impl Missing {
    fn is(&self, file: &OpenFile, locks_disks: bool) -> bool {
        (file.device, file.inode) == (self.identity.device, self.identity.inode)
            && (self.readonly || file.writable && (file.locked || !locks_disks))
    }
}

fn backing_identities(disk: &WorkingDisk) -> impl Iterator<Item = FileIdentity> {
    disk.backing.iter().map(|member| member.identity)
}

/// Returns a closure that proves the bytes of one disk, to be run on a thread that may block.
fn prove(
    disk: &WorkingDisk,
    level: VerificationLevel,
    recorded: Option<RecordedDisk>,
) -> impl FnOnce() -> Result<DiskProof, Error> + Send + 'static {
    let role = disk.role();
    let (open, path) = (disk.opener(), disk.path());
    // The VMM has a writable disk open for writing, so no lease is granted on it, and it can't be mapped.
    let access = match disk.given.readonly {
        true => AccessPolicy::PreferMapped,
        false => AccessPolicy::ReadOnly,
    };
    move || {
        let file = open()?;
        let held = recorded.and_then(|it| it.held);
        let bytes = match (held, recorded) {
            (Some(held), _)
                if level == VerificationLevel::Fast && identity(&file, &path)? == held.identity =>
            {
                Ok(held)
            }
            (_, Some(it)) => overlay::examine(&file, &path, &it.bytes, level, access),
            (_, None) => overlay::sha256_of(&file, &path, access).map(|proof| {
                proof.with_digest(Digests {
                    sha256: proof.digest,
                    fsverity: None,
                })
            }),
        };
        Ok(DiskProof {
            role,
            bytes: bytes.map_err(|source| Error::Disk { role, source })?,
            open_in_vmm: OpenInVmm::NotApplicable,
        })
    }
}

fn identity(file: &File, path: &std::path::Path) -> Result<FileIdentity, Error> {
    let metadata = file.metadata();
    let metadata = metadata.map_err(Error::file("read the attributes of", path))?;
    Ok(FileIdentity::from(&metadata))
}
