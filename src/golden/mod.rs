//! Golden snapshots: the state to which every reset returns, with the baselines that prove that it did.
//!
//! A golden snapshot is one folder that can be moved as a whole:
//!
//! ```text
//! golden/
//!   manifest.json    what it was made of, the digests of every file, the baselines
//!   manifest.sig     the signature of the manifest, if one was asked for
//!   snapshot/        config.json, state.json, memory-ranges: written by the VMM, never changed
//!   overlay.img      the bytes of each writable disk at that moment (root.img for a writable root)
//! ```
//!
//! A disk that the guest can't write stays where it is; the manifest has its path and its digest.

mod baseline;
mod compare;
mod cpu;
mod error;
mod executable;
mod facts;
mod files;
mod folder;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod headroom;
mod host;
mod loaded;
mod manifest;
pub mod memory;
mod mint;
mod signature;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::Disk;
use crate::overlay::{Digest, VerityDigest};

pub use baseline::{BaselineError, Baselines, vmm_api_state};
pub use compare::{Difference, compare};
pub use cpu::{CpuFacts, CpuFlags};
pub use error::Error;
pub use facts::{
    ExecutableFacts, FileFacts, GoldenDisk, GuestFacts, PayloadFacts, ShapeFacts, SnapshotFacts,
    SnapshotFile, VmmFacts,
};
pub use files::Part;
pub(crate) use headroom::available_memory;
pub use headroom::{MemoryLimit, Shortage};
pub use loaded::{HeldDisks, LoadOptions, LoadedGolden};
pub use manifest::Manifest;
pub use memory::{CopyReason, LoadedMemory, MemoryBasis, MemoryMode};
pub use mint::{MintConfig, MintError, MintProgress, MintStep, WarmFailure, WarmTool, mint};
pub use signature::{KeyError, PublicKey, SigningKey};
pub use verify::{Inspection, MemoryNeed, Mismatch, VerifiedFile};

/// The folder of the VMM's own files within a golden snapshot.
const SNAPSHOT: &str = "snapshot";

/// What a manifest has to be, so that it is believed. Without either, any manifest that fits its files is.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The owner of this key has signed it.
    pub signed_by: Option<PublicKey>,
    /// It has this digest: [`Golden::digest`] of the golden snapshot that is meant.
    pub digest: Option<Digest>,
}

/// A golden snapshot on disk.
#[derive(Clone, Debug)]
pub struct Golden {
    directory: PathBuf,
    manifest: Manifest,
    /// Both of the very bytes from which the manifest was read.
    digest: Digest,
    manifest_digest: VerityDigest,
    manifest_length: u64,
}

impl Golden {
    /// Opens the golden snapshot in `directory`: reads its manifest, and checks that every file that it needs
    /// is there.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::Malformed`], [`Error::Format`] and [`Error::Refused`], with the path of what is
    /// missing, unreadable or wrong.
    pub fn open(directory: &Path) -> Result<Golden, Error> {
        Golden::open_trusted(directory, &Trust::default())
    }

    /// The same for one whose manifest has to be as `trust` says. Nothing of a manifest is looked at before.
    ///
    /// # Errors
    ///
    /// [`Error::NotPinned`], [`Error::Unsigned`] and [`Error::BadSignature`] besides those of [`open`](Golden::open).
    pub fn open_trusted(directory: &Path, trust: &Trust) -> Result<Golden, Error> {
        let directory = fs::canonicalize(directory).map_err(|source| Error::Missing {
            path: directory.to_owned(),
            source,
        })?;
        let path = directory.join(manifest::FILE);
        let bytes = manifest::read(&path)?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = trust.digest
            && digest != expected
        {
            return Err(Error::NotPinned {
                path,
                expected,
                found: digest,
            });
        }
        if let Some(key) = &trust.signed_by {
            check_signature(&bytes, &directory.join(signature::FILE), key)?;
        }
        let golden = Golden {
            manifest: Manifest::parse(&bytes, &path)?,
            digest,
            manifest_digest: VerityDigest::of(&bytes),
            manifest_length: bytes.len() as u64,
            directory,
        };
        for path in golden.files().into_iter().map(|file| file.path) {
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

    /// The SHA-256 of the manifest, as `sha256sum manifest.json` prints it. It names the golden snapshot: the manifest has
    /// the digests of everything else.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    fn same_file(&self, one: &Path, other: &Path) -> Error {
        Error::Refused {
            path: self.directory.join(manifest::FILE),
            reason: format!(
                "{} and {} are the same file",
                one.display(),
                other.display()
            ),
        }
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
            format: disk.format,
        });
        disks.collect()
    }
}

fn check_signature(manifest: &[u8], path: &Path, key: &PublicKey) -> Result<(), Error> {
    const MAX_BYTES: u64 = 4096;
    let path = path.to_owned();
    let signature = match manifest::read_bounded(&path, MAX_BYTES) {
        Err(Error::Missing { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Unsigned { path });
        }
        read => read?,
    };
    match key.verifies(manifest, &signature) {
        true => Ok(()),
        false => Err(Error::BadSignature {
            path,
            key: Box::new(*key),
        }),
    }
}
