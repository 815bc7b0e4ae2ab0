//! The disks of a machine: where each comes from, and the file that the VM gets.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::layout::{Layout, utf8};
use super::readings::blocking;
use super::{DiskFile, Error, FilePurpose};
use crate::overlay::qcow2::{self, Chain, Member};
use crate::overlay::{
    self, AccessPolicy, Change, Copied, DiskFormat, FileIdentity, Hashed, Threads, VerityDigest,
};

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
    /// An image. The machine never writes to it: a read-only disk is opened as it is, of a writable one
    /// the VM gets a copy.
    pub origin: PathBuf,
    /// Whether the guest may not write to it.
    pub readonly: bool,
    /// How the image's bytes make the disk. The VMM is told, so that it doesn't guess.
    ///
    /// A qcow2 image that is writable has to be of version 2; [`overlay::qcow2`] says why. It is known to a VMM that
    /// knows `backing_files`, v50.2 and later.
    pub format: DiskFormat,
}

impl Disk {
    /// The files that the image lies upon, from the upper to the lowest: none for a raw one. They are opened
    /// read-only, as they are, so their bytes are a part of the disk's, and are to be proved like those of a read-only
    /// disk.
    ///
    /// # Errors
    ///
    /// [`Error::Disk`] for a chain that can't be used, or a writable image that a VMM would change by opening it.
    pub fn backing(&self) -> Result<Vec<Member>, Error> {
        let chain = self.chain().map_err(|source| Error::Disk {
            role: self.role,
            source,
        })?;
        Ok(chain.map_or_else(Vec::new, |chain| chain.backing().to_vec()))
    }

    /// The length in bytes that the VMM's file of this disk has at most.
    pub(super) fn largest_file(&self) -> Result<u64, Error> {
        let chain = self.chain().map_err(|source| Error::Disk {
            role: self.role,
            source,
        })?;
        match chain {
            Some(chain) => Ok(chain.largest_file()),
            None => {
                let length = File::open(&self.origin).and_then(|file| Ok(file.metadata()?.len()));
                length.map_err(Error::file("open", self.origin.as_path()))
            }
        }
    }

    fn chain(&self) -> Result<Option<Chain>, overlay::Error> {
        match self.format {
            DiskFormat::Raw => Ok(None),
            DiskFormat::Qcow2 => {
                let chain = qcow2::chain(&self.origin)?;
                if !self.readonly {
                    chain.check_writable()?;
                }
                Ok(Some(chain))
            }
        }
    }
}

/// A disk with the file that the VM opens.
#[derive(Debug)]
pub(super) struct WorkingDisk {
    pub(super) role: DiskRole,
    pub(super) origin: PathBuf,
    pub(super) readonly: bool,
    pub(super) format: DiskFormat,
    pub(super) path: PathBuf,
    /// The VMM's name for the file.
    pub(super) name: String,
    /// The backing files as they were when the machine was made.
    pub(super) backing: Vec<Member>,
    /// Held while the working copy is made: a caller that gives up waiting for that leaves it going on, and it must
    /// not end in the middle of what comes next.
    copying: Arc<Mutex<()>>,
}

impl WorkingDisk {
    /// `inherited` is the VMM's name for a read-only disk that it has inherited.
    pub(super) fn new(
        disk: Disk,
        layout: &Layout,
        inherited: Option<String>,
    ) -> Result<Self, Error> {
        let mut disk = disk;
        // The VMM resolves a relative path against its own working directory, a snapshot for ever.
        disk.origin =
            std::path::absolute(&disk.origin).map_err(Error::file("resolve", &disk.origin))?;
        let backing = disk.backing()?;
        let Disk {
            role,
            origin,
            readonly,
            format,
        } = disk;
        let path = match readonly {
            true => {
                // The VMM's own message for a missing file doesn't name it.
                File::open(&origin).map_err(Error::file("open", origin.as_path()))?;
                origin.clone()
            }
            false => layout.disk(role),
        };
        let name = match inherited {
            Some(name) => name,
            None => utf8("disk", &path)?.to_owned(),
        };
        Ok(WorkingDisk {
            role,
            name,
            origin,
            readonly,
            format,
            path,
            backing,
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
        let path = self.path.clone();
        let hashed = blocking(move || overlay::sha256(&path, policy)).await;
        hashed.map_err(|source| self.error(source))
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
            format: self.format,
        }
    }

    /// Looks up, where that may block, the files that the disk needs. Fails if the chain isn't what it was.
    pub(super) fn files(&self) -> impl FnOnce() -> Result<Vec<DiskFile>, Error> + Send + 'static {
        let (disk, before, path) = (self.as_given(), self.backing.clone(), self.path.clone());
        move || {
            let file = |purpose, path| DiskFile {
                role: disk.role,
                purpose,
                path,
            };
            let backing = disk.backing()?;
            if !backing.iter().map(which).eq(before.iter().map(which)) {
                return Err(Error::Disk {
                    role: disk.role,
                    source: overlay::Error::Changed {
                        path: disk.origin,
                        change: Change::Backing,
                    },
                });
            }
            let mut files = match disk.readonly {
                true => vec![file(FilePurpose::Image, disk.origin)],
                false => vec![
                    file(FilePurpose::Origin, disk.origin),
                    file(FilePurpose::WorkingCopy, path),
                ],
            };
            let backing = backing.into_iter();
            files.extend(backing.map(|member| file(FilePurpose::Backing, member.path)));
            Ok(files)
        }
    }

    fn error(&self, source: overlay::Error) -> Error {
        Error::Disk {
            role: self.role,
            source,
        }
    }
}

/// What makes a backing file the same. Its length and bytes are for a digest to prove.
fn which(member: &Member) -> (&Path, DiskFormat, FileIdentity) {
    (&member.path, member.format, member.identity)
}
