//! What a manifest says of each thing that a golden snapshot was made of.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::machine::{DiskFormat, DiskRole, SNAPSHOT_FILES};
use crate::overlay::{Digest, RecordedBytes, VerityDigest};

/// A file by its path, its length and both digests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// Where it was. Absolute.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
    /// The SHA-256 of its bytes.
    pub sha256: Digest,
    /// The digest that the kernel's fs-verity would give it.
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

/// The executable that the VMM's process ran, not the file that had its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutableFacts {
    /// Its length in bytes.
    pub length: u64,
    /// The SHA-256 of its bytes.
    pub sha256: Digest,
}

/// The build of a VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmmFacts {
    /// What `vmm.ping` says of its build, as `v53.0-12-gabcdef-dirty`.
    pub build_version: String,
    /// Its executable. `None`: another program ran that VMM, and its process can't be looked at.
    pub executable: Option<ExecutableFacts>,
}

/// What the VM was booted from. A restore needs none of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadFacts {
    /// The kernel.
    pub kernel: FileFacts,
    /// The initramfs, if the kernel needed one.
    pub initramfs: Option<FileFacts>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// How large the VM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeFacts {
    /// How many vCPUs.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The guest's vsock CID.
    pub cid: u32,
}

/// A disk of a golden snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenDisk {
    /// What it is for.
    pub role: DiskRole,
    /// Whether the guest may not write to it.
    pub readonly: bool,
    /// How its bytes make a disk; raw where a manifest doesn't say.
    #[serde(default)]
    pub format: DiskFormat,
    /// Absolute for a read-only disk, which stays where it is; the name of the kept copy for a writable one.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
    /// The SHA-256 of its bytes, taken while the VM was paused.
    pub sha256: Digest,
    /// The digest that the kernel's fs-verity would give it, taken in the same pass.
    pub fsverity: VerityDigest,
    /// What lies beneath a qcow2 image, from the nearest backing file to the last. Empty for a raw image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backing: Vec<FileFacts>,
}

impl GoldenDisk {
    /// Its length and both its digests.
    pub fn recorded(&self) -> RecordedBytes {
        RecordedBytes {
            sha256: self.sha256,
            fsverity: self.fsverity,
            length: self.length,
        }
    }
}

/// A file that the VMM wrote into the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFile {
    /// Its length in bytes.
    pub length: u64,
    /// The digest that the kernel's fs-verity would give it.
    pub fsverity: VerityDigest,
}

/// The VMM's own files. The VMM checks none of them when it restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFacts {
    /// `config.json`: the VM's description.
    pub config: SnapshotFile,
    /// `state.json`: the devices' and vCPUs' state.
    pub state: SnapshotFile,
    /// `memory-ranges`: the guest's memory.
    pub memory_ranges: SnapshotFile,
}

impl SnapshotFacts {
    /// Each file with its name in the snapshot's folder and the name of its field here.
    pub fn files(&self) -> [(&'static str, &'static str, SnapshotFile); 3] {
        let [config, state, memory_ranges] = SNAPSHOT_FILES;
        [
            (config, "config", self.config),
            (state, "state", self.state),
            (memory_ranges, "memory_ranges", self.memory_ranges),
        ]
    }
}

/// What is known of the guest of a golden snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestFacts {
    /// The vsock port of its dispatcher.
    pub port: u32,
    /// The version of the protocol that it speaks, if it could say.
    pub protocol: Option<u32>,
    /// The build of its dispatcher, if it could say.
    pub build_id: Option<String>,
    /// The secret that it holds in memory since before the snapshot, if it could take one. A guest that was
    /// booted again doesn't have it.
    pub nonce: Option<String>,
}

/// Whether a path is absolute and has no `.` or `..` in it.
pub(super) fn is_plain_absolute(path: &Path) -> bool {
    use std::path::Component;
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(plain)
}
