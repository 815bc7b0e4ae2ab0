//! The records of which a manifest consists: files, the VMM, the VM's payload and shape, disks, the snapshot and the
//! guest.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::machine::{DiskFormat, DiskRole, SNAPSHOT_FILES};
use crate::overlay::{Digest, RecordedBytes, VerityDigest};

/// A file: its path, its length and two digests of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FileFacts {
    /// The absolute path of the file when the golden snapshot was made.
    pub path: PathBuf,
    /// The file's length in bytes.
    pub length: u64,
    /// The SHA-256 of the file's bytes.
    pub sha256: Digest,
    /// The digest that Linux fs-verity computes for the file (SHA-256, blocks of 4 KiB, no salt).
    pub fsverity: VerityDigest,
}

impl FileFacts {
    pub(super) fn new(path: PathBuf, recorded: &RecordedBytes) -> Self {
        FileFacts {
            path,
            length: recorded.length,
            sha256: recorded.sha256,
            fsverity: recorded.fsverity,
        }
    }
}

/// The executable that the VMM's process ran. It was read through the process, not by its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ExecutableFacts {
    /// The executable's length in bytes.
    pub length: u64,
    /// The SHA-256 of the executable's bytes.
    pub sha256: Digest,
}

/// The build of a VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct VmmFacts {
    /// The VMM's build as `vmm.ping` reports it, such as `v53.0-12-gabcdef-dirty`.
    pub build_version: String,
    /// The VMM's executable. `None` if another program ran the VMM, as its process can't be examined then.
    pub executable: Option<ExecutableFacts>,
}

/// The kernel, initramfs and command line that the VM was booted from. A restore needs none of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PayloadFacts {
    /// The kernel.
    pub kernel: FileFacts,
    /// The initramfs, if the VM was booted with one.
    pub initramfs: Option<FileFacts>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// The VM's size and its vsock address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ShapeFacts {
    /// The number of vCPUs.
    pub vcpus: u32,
    /// The guest's memory, in MiB.
    pub memory_mib: u64,
    /// The guest's vsock CID.
    pub cid: u32,
}

/// A disk of a golden snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GoldenDisk {
    /// The disk's role in the VM.
    pub role: DiskRole,
    /// Whether the guest may only read the disk.
    pub readonly: bool,
    /// The disk's image format. A manifest that lacks the field means raw.
    #[serde(default)]
    pub format: DiskFormat,
    /// For a read-only disk, the absolute path of its file, which stays where it is. For a writable disk, the name of
    /// the kept copy within the golden snapshot's folder, such as `overlay.img`.
    pub path: PathBuf,
    /// The file's length in bytes.
    pub length: u64,
    /// The SHA-256 of the file's bytes at the time of the snapshot.
    pub sha256: Digest,
    /// The digest that Linux fs-verity computes for the file, taken in the same pass as `sha256`.
    pub fsverity: VerityDigest,
    /// The backing files of a qcow2 image, from the nearest to the last. Empty for a raw image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backing: Vec<FileFacts>,
}

/// A file that the VMM wrote into the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SnapshotFile {
    /// The file's length in bytes.
    pub length: u64,
    /// The digest that Linux fs-verity computes for the file.
    pub fsverity: VerityDigest,
}

/// The three files that the VMM wrote as the snapshot. The VMM itself does not check their integrity when it restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SnapshotFacts {
    /// `config.json`: the VM's configuration.
    pub config: SnapshotFile,
    /// `state.json`: the state of the devices and the vCPUs.
    pub state: SnapshotFile,
    /// `memory-ranges`: the guest's memory.
    pub memory_ranges: SnapshotFile,
}

impl SnapshotFacts {
    /// Returns, for each file, its name in the snapshot's folder, the name of its field in this struct, and its record.
    pub fn files(&self) -> [(&'static str, &'static str, SnapshotFile); 3] {
        let [config, state, memory_ranges] = SNAPSHOT_FILES;
        [
            (config, "config", self.config),
            (state, "state", self.state),
            (memory_ranges, "memory_ranges", self.memory_ranges),
        ]
    }
}

/// The guest of a golden snapshot and its dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GuestFacts {
    /// The vsock port of the guest's dispatcher.
    pub port: u32,
    /// The version of the guest protocol; `None` for a dispatcher that does not report one.
    pub protocol: Option<u32>,
    /// The build of the dispatcher; `None` for a dispatcher that does not report one.
    pub build_id: Option<String>,
    /// A random marker that the guest was given before the snapshot and keeps in memory only. It proves that a guest was
    /// restored from this snapshot, since a guest that was booted again doesn't have it. `None` for a dispatcher that
    /// can't keep one.
    pub nonce: Option<String>,
}

/// Whether a path is absolute and has no `.` or `..` in it.
pub(super) fn is_plain_absolute(path: &Path) -> bool {
    use std::path::Component;
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(plain)
}
