//! [`Manifest`]: the record of everything that a golden snapshot was made of, and its file format.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::manifest_records::is_plain_absolute;
use super::{
    Baselines, CpuFacts, Error, GoldenDisk, GuestFacts, PayloadFacts, ShapeFacts, SnapshotFacts,
    VmmFacts, WarmTool,
};
use crate::files::{self, ReadError, Symlinks};
use crate::machine::{DiskRole, VmShape};
use crate::overlay::Digest;

/// The manifest's file name within the golden snapshot's folder.
pub(super) const FILE: &str = "manifest.json";

/// The format that this version writes, and the only one that it reads.
pub(super) const FORMAT: u32 = 2;

/// The largest manifest that is read. A manifest usually has a few KiB.
const MAX_BYTES: u64 = 1 << 20;

/// The record of a golden snapshot, made when it was minted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// The version of the manifest's format.
    pub format: u32,
    /// The time at which the golden snapshot was made.
    pub minted_at: Timestamp,
    /// The release of the VMM that made the golden snapshot, such as `v53.0`. Only the same release may restore it.
    pub release: String,
    /// The build of the VMM that made the golden snapshot.
    pub vmm: VmmFacts,
    /// The processor that the guest booted on.
    pub cpu: CpuFacts,
    /// The kernel, initramfs and command line that the VM was booted from.
    pub payload: PayloadFacts,
    /// The digest of the container image that the root disk was made from, if it was made from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_image: Option<Digest>,
    /// The VM's size and vsock address.
    pub shape: ShapeFacts,
    /// The disks in the VM's order: the root, then the overlay if there is one.
    pub disks: Vec<GoldenDisk>,
    /// The three files that the VMM wrote.
    pub snapshot: SnapshotFacts,
    /// The guest and its dispatcher.
    pub guest: GuestFacts,
    /// The tools that warmed the guest before the snapshot, in the order in which they ran. Their parameters are
    /// recorded in plain text, so they must not contain a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warmed_by: Vec<WarmTool>,
    /// The values that the three sources must give after every reset.
    pub baselines: Baselines,
}

/// The one field that every format of the manifest has.
#[derive(Deserialize)]
struct Header {
    format: u32,
}

impl Manifest {
    /// The record of the disk whose digest is the baseline `fs_hash`: the overlay, or the root if there is no overlay.
    pub(crate) fn hashed_disk(&self) -> &GoldenDisk {
        self.disks
            .last()
            .expect("a manifest without disks is refused")
    }

    /// The shape of the VM that was snapshotted, in the form in which a machine boots it.
    pub(crate) fn vm_shape(&self) -> VmShape {
        let payload = &self.payload;
        let initramfs = payload.initramfs.as_ref();
        VmShape {
            kernel: payload.kernel.path.clone(),
            initramfs: initramfs.map(|file| file.path.clone()),
            cmdline: payload.cmdline.clone(),
            vcpus: self.shape.vcpus,
            memory_mib: self.shape.memory_mib,
            cid: self.shape.cid,
        }
    }

    /// Parses the manifest in `bytes`. `path` is the file that they were read from, for errors.
    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let malformed = |source| Error::Malformed {
            path: path.to_owned(),
            source,
        };
        // The format is checked first: an error about an unknown field of another format would not explain the refusal.
        let Header { format } = serde_json::from_slice(bytes).map_err(malformed)?;
        if format != FORMAT {
            return Err(Error::Format {
                path: path.to_owned(),
                format,
                expected: FORMAT,
            });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(malformed)?;
        manifest.check().map_err(|reason| Error::Refused {
            path: path.to_owned(),
            reason,
        })?;
        Ok(manifest)
    }

    /// The contents of the manifest's file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut text =
            serde_json::to_vec_pretty(self).expect("a manifest has text for its keys only");
        text.push(b'\n');
        text
    }

    /// Checks what a mint always writes. A manifest that was made or edited in another way may violate it.
    fn check(&self) -> Result<(), String> {
        let roles: Vec<_> = self.disks.iter().map(|disk| disk.role).collect();
        if !matches!(
            roles[..],
            [DiskRole::Root] | [DiskRole::Root, DiskRole::Overlay]
        ) {
            return Err(format!(
                "its disks are {roles:?}, where one root and at most one overlay are allowed"
            ));
        }
        self.disks.iter().try_for_each(check_disk)?;
        for (name, _, file) in self.snapshot.files() {
            if file.length == 0 {
                return Err(format!("the snapshot's {name} has no bytes"));
            }
        }
        if self.baselines.fs_hash != self.hashed_disk().sha256 {
            return Err("its baseline is not the digest of its overlay".to_owned());
        }
        if self.baselines.open_fd_count == 0 {
            return Err("its baseline of descriptors is 0, which no guest has".to_owned());
        }
        Ok(())
    }
}

fn check_disk(disk: &GoldenDisk) -> Result<(), String> {
    let role = disk.role;
    if disk.sha256 == Digest::OF_NOTHING || disk.length == 0 {
        return Err(format!("the digest of its {role} disk is that of no bytes"));
    }
    let kept = disk.path == Path::new(&format!("{role}.img"));
    let stays = disk.readonly && is_plain_absolute(&disk.path);
    if !kept && !stays {
        let path = disk.path.display();
        return Err(format!(
            "its {role} disk lies at {path}, outside the folder"
        ));
    }
    for file in &disk.backing {
        if !is_plain_absolute(&file.path) {
            let path = file.path.display();
            return Err(format!(
                "its {role} disk rests on {path}, which is not a plain absolute path"
            ));
        }
    }
    Ok(())
}

/// Reads a small file of a golden snapshot whole. A file that is larger than `limit` bytes is refused.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    files::read_bounded(path, limit, Symlinks::Follow).map_err(|error| {
        let path = path.to_owned();
        match error {
            ReadError::Failed { source, .. } => Error::Missing { path, source },
            refused => Error::Refused {
                path,
                reason: refused.to_string(),
            },
        }
    })
}

/// Reads the bytes of the manifest at `path`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    read_bounded(path, MAX_BYTES)
}

/// Writes a new file with mode 0600, and returns once its bytes are on the disk.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let written = files::write_private(path, bytes).and_then(|file| file.sync_all());
    written.map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}
