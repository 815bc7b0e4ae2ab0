//! Golden snapshots: the state to which every reset returns, with the baselines that prove that it did.
//!
//! A golden snapshot is one folder that can be moved as a whole:
//!
//! ```text
//! golden/
//!   manifest.json    what it was made of, the disks' digests, the baselines
//!   snapshot/        config.json, state.json, memory-ranges: written by the VMM, never changed
//!   overlay.img      the bytes of each writable disk at that moment (root.img for a writable root)
//! ```
//!
//! A disk that the guest can't write stays where it is; the manifest has its path and its digest.

mod baseline;
mod manifest;
mod mint;

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::{Disk, DiskFormat, SNAPSHOT_FILES};

pub use baseline::{BaselineError, Baselines, vmm_api_state};
pub use manifest::{Error, GoldenDisk, GuestFacts, Manifest};
pub use mint::{MintConfig, MintError, mint};

/// The folder of the VMM's own files within a golden snapshot.
const SNAPSHOT: &str = "snapshot";

/// A golden snapshot on disk.
#[derive(Clone, Debug)]
pub struct Golden {
    directory: PathBuf,
    manifest: Manifest,
}

impl Golden {
    /// Opens the golden snapshot in `directory`: reads its manifest, and checks that every file that it needs
    /// is there.
    ///
    /// # Errors
    ///
    /// [`Error`], with the path of what is missing or unreadable.
    pub fn open(directory: &Path) -> Result<Golden, Error> {
        let directory = fs::canonicalize(directory).map_err(|source| Error::Missing {
            path: directory.to_owned(),
            source,
        })?;
        let golden = Golden {
            manifest: Manifest::read(&directory.join(manifest::FILE))?,
            directory,
        };
        let snapshot = golden.snapshot();
        let disks = golden.disks().into_iter().map(|disk| disk.origin);
        let files = SNAPSHOT_FILES.iter().map(|name| snapshot.join(name));
        for path in files.chain(disks) {
            fs::metadata(&path).map_err(|source| Error::Missing { path, source })?;
        }
        Ok(golden)
    }

    /// Where it lies. An absolute path.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is recorded of it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The folder of the VMM's own files.
    pub fn snapshot(&self) -> PathBuf {
        self.directory.join(SNAPSHOT)
    }

    /// The disks of a machine that is reverted to this snapshot, in the VM's order.
    pub fn disks(&self) -> Vec<Disk> {
        let disks = self.manifest.disks.iter();
        let disks = disks.map(|disk| Disk {
            role: disk.role,
            // A relative path is one of a kept copy; `join` leaves an absolute one as it is.
            origin: self.directory.join(&disk.path),
            readonly: disk.readonly,
            format: DiskFormat::Raw,
        });
        disks.collect()
    }
}
