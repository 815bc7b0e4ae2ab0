//! The manifest of a golden snapshot: what it was made of, as a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Baselines;
use crate::machine::DiskRole;
use crate::overlay::Digest;

/// The manifest's name within the folder.
pub(super) const FILE: &str = "manifest.json";

/// The format that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// A manifest has a few KiB.
const MAX_BYTES: u64 = 1 << 20;

/// What is recorded when a golden snapshot is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of this file.
    pub format: u32,
    /// When it was made.
    pub minted_at: Timestamp,
    /// The release of the VMM that made it, as `v53.0`. Another release may not restore it.
    pub release: String,
    /// The disks in the VM's order: the root, then the overlay if there is one.
    pub disks: Vec<GoldenDisk>,
    /// What is known of the guest.
    pub guest: GuestFacts,
    /// What the three sources have to say after every reset.
    pub baselines: Baselines,
}

/// A disk of a golden snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenDisk {
    /// What it is for.
    pub role: DiskRole,
    /// Whether the guest may not write to it.
    pub readonly: bool,
    /// Absolute for a read-only disk, which stays where it is; the name of the kept copy for a writable one.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
    /// The SHA-256 of its bytes, taken while the VM was paused.
    pub sha256: Digest,
}

/// What is known of the guest of a golden snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestFacts {
    /// The vsock port of its dispatcher.
    pub port: u32,
    /// The build of its dispatcher, if it could say.
    pub build_id: Option<String>,
    /// The secret that it holds in memory since before the snapshot, if it could take one. A guest that was
    /// booted again doesn't have it.
    pub nonce: Option<String>,
}

/// A golden snapshot can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder, or a file of it, isn't there or can't be read.
    #[error("the golden snapshot needs {}, which cannot be read", path.display())]
    Missing {
        /// What is missing.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest isn't one.
    #[error("{} is not a manifest", path.display())]
    Malformed {
        /// The manifest.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// The manifest can't be used although it is well-formed.
    #[error("{} cannot be used: {reason}", path.display())]
    Refused {
        /// The manifest.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The manifest couldn't be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The manifest.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Manifest {
    pub(super) fn new(
        release: String,
        disks: Vec<GoldenDisk>,
        guest: GuestFacts,
        baselines: Baselines,
    ) -> Self {
        Manifest {
            format: FORMAT,
            minted_at: Timestamp::now(),
            release,
            disks,
            guest,
            baselines,
        }
    }

    /// The record of the disk whose digest is the `fs_hash`: the overlay, or the root where there is none.
    pub fn hashed_disk(&self) -> &GoldenDisk {
        self.disks
            .last()
            .expect("a manifest without disks is refused")
    }

    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(|source| Error::Missing {
            path: path.to_owned(),
            source,
        })?;
        let refused = |reason| Error::Refused {
            path: path.to_owned(),
            reason,
        };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(refused(format!("it is larger than {MAX_BYTES} bytes")));
        }
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|source| Error::Malformed {
                path: path.to_owned(),
                source,
            })?;
        manifest.check().map_err(refused)?;
        Ok(manifest)
    }

    /// What a manifest of ours always fulfils, and one from elsewhere may not.
    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!(
                "its format is {}, this version reads {FORMAT}",
                self.format
            ));
        }
        let roles: Vec<_> = self.disks.iter().map(|disk| disk.role).collect();
        if !matches!(
            roles[..],
            [DiskRole::Root] | [DiskRole::Root, DiskRole::Overlay]
        ) {
            return Err(format!(
                "its disks are {roles:?}, not a root and at most an overlay"
            ));
        }
        for disk in &self.disks {
            if disk.sha256 == Digest::OF_NOTHING {
                return Err(format!(
                    "the digest of its {} disk is that of no bytes",
                    disk.role
                ));
            }
            let kept = disk.path == Path::new(&format!("{}.img", disk.role));
            let stays = disk.readonly && disk.path.is_absolute();
            if !kept && !stays {
                return Err(format!(
                    "its {} disk lies at {}, outside the folder",
                    disk.role,
                    disk.path.display()
                ));
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

    /// Writes the manifest as a new file, on the disk when this returns.
    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_all()
        };
        write().map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
    }
}
