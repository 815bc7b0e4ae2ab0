//! The disks of a machine: where each comes from, and the file that the VM gets.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Error;
use super::layout::Layout;
use super::readings::blocking;
use crate::overlay::{self, AccessPolicy, Copied, Hashed, Threads, VerityDigest};

/// What a disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskRole {
    /// The first disk, `/dev/vda` in the guest.
    Root,
    /// The second, `/dev/vdb`: where the guest's writes land when the root is read-only.
    Overlay,
}

impl fmt::Display for DiskRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskRole::Root => "root",
            DiskRole::Overlay => "overlay",
        })
    }
}

/// A disk as it is given to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What it is for.
    pub role: DiskRole,
    /// A raw image. The machine never writes to it: a read-only disk is opened as it is, of a writable one
    /// the VM gets a copy.
    pub origin: PathBuf,
    /// Whether the guest may not write to it.
    pub readonly: bool,
}

/// A disk with the file that the VM opens.
#[derive(Debug)]
pub(super) struct WorkingDisk {
    pub(super) role: DiskRole,
    pub(super) origin: PathBuf,
    pub(super) readonly: bool,
    pub(super) path: PathBuf,
    /// Held while the working copy is made: a caller that gives up waiting for that leaves it going on, and it must
    /// not end in the middle of what comes next.
    copying: Arc<Mutex<()>>,
}

impl WorkingDisk {
    pub(super) fn new(disk: Disk, layout: &Layout) -> Result<Self, Error> {
        let Disk {
            role,
            origin,
            readonly,
        } = disk;
        // The VMM resolves a relative path against its own working directory, a snapshot for ever.
        let origin = std::path::absolute(&origin).map_err(Error::file("resolve", origin))?;
        let path = match readonly {
            true => {
                // The VMM's own message for a missing file doesn't name it.
                File::open(&origin).map_err(Error::file("open", origin.as_path()))?;
                origin.clone()
            }
            false => layout.disk(role),
        };
        Ok(WorkingDisk {
            role,
            origin,
            readonly,
            path,
            copying: Arc::default(),
        })
    }

    /// Makes the working copy of a writable disk equal to its origin, as a new file. A read-only disk is left
    /// as it is found.
    pub(super) async fn put_back(&self) -> Result<Option<Copied>, Error> {
        if self.readonly {
            return Ok(None);
        }
        let (origin, path) = (self.origin.clone(), self.path.clone());
        let copying = Arc::clone(&self.copying);
        let done = blocking(move || {
            let _alone = copying.lock().unwrap_or_else(PoisonError::into_inner);
            overlay::put_back(&origin, &path)
        });
        let done = done.await;
        done.map(Some).map_err(|source| self.error(source))
    }

    /// Hashes the file that the VM opens.
    pub(super) async fn hash(&self, policy: AccessPolicy) -> Result<Hashed, Error> {
        self.hash_file(&self.path, policy).await
    }

    /// Takes the fs-verity digest of the file that the VM opens.
    pub(super) async fn hash_verity(
        &self,
        policy: AccessPolicy,
    ) -> Result<Hashed<VerityDigest>, Error> {
        let path = self.path.clone();
        let hashed = blocking(move || overlay::fsverity(&path, policy, Threads::default())).await;
        hashed.map_err(|source| self.error(source))
    }

    /// Hashes the file that the disk comes from.
    pub(super) async fn hash_origin(&self) -> Result<Hashed, Error> {
        self.hash_file(&self.origin, AccessPolicy::PreferMapped)
            .await
    }

    async fn hash_file(&self, path: &Path, policy: AccessPolicy) -> Result<Hashed, Error> {
        let path = path.to_owned();
        let hashed = blocking(move || overlay::sha256(&path, policy)).await;
        hashed.map_err(|source| self.error(source))
    }

    /// Keeps a copy of the disk's present bytes at `to`. The VM must not run.
    pub(super) async fn keep(&self, to: PathBuf) -> Result<(), Error> {
        let path = self.path.clone();
        let kept = blocking(move || overlay::copy_private(&path, &to)).await;
        kept.map(drop).map_err(|source| self.error(source))
    }

    pub(super) fn as_given(&self) -> Disk {
        Disk {
            role: self.role,
            origin: self.origin.clone(),
            readonly: self.readonly,
        }
    }

    fn error(&self, source: overlay::Error) -> Error {
        Error::Disk {
            role: self.role,
            source,
        }
    }
}
