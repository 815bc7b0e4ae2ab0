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
mod cpu;
mod error;
mod facts;
mod held;
mod host;
mod manifest;
pub mod memory;
mod mint;
mod watcher;

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::{Disk, SNAPSHOT_FILES};

pub use baseline::{BaselineError, Baselines, vmm_api_state};
pub use cpu::{CpuFacts, CpuFlags};
pub use error::Error;
pub use facts::{
    ExecutableFacts, FileFacts, GoldenDisk, GuestFacts, PayloadFacts, ShapeFacts, SnapshotFacts,
    SnapshotFile, VmmFacts,
};
pub use held::{HeldDisk, HeldGolden};
pub use manifest::Manifest;
pub use memory::{Basis, MemoryPolicy, MemoryProof};
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
            manifest: {
                let path = directory.join(manifest::FILE);
                Manifest::parse(&manifest::read(&path)?, &path)?
            },
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
        });
        disks.collect()
    }
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going away, and this task with it.
        Err(_) => std::future::pending().await,
    }
}
