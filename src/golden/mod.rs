//! Golden snapshots: the state to which every reset returns, with the baselines that a reset is verified against.
//!
//! [`mint()`] creates a golden snapshot, [`Golden`] opens one, and [`Golden::load`] prepares it for restores.
//!
//! A golden snapshot is one folder that can be moved as a whole:
//!
//! ```text
//! golden/
//!   manifest.json    the record of its parts, the digests of every file, the baselines
//!   manifest.sig     the signature of the manifest, if it was signed
//!   snapshot/        config.json, state.json, memory-ranges: written by the VMM, never changed
//!   overlay.img      a copy of each writable disk at the time of the snapshot (root.img for a writable root)
//! ```
//!
//! A read-only disk is not copied into the folder. The manifest has its path and its digests.

mod baseline;
mod compare;
mod cpu;
mod error;
mod executable;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host;
mod loaded;
mod manifest;
mod manifest_records;
mod memory;
mod memory_availability;
mod mint;
mod signature;
mod unfinished;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::Disk;
use crate::overlay::{Digest, VerityDigest};

pub use baseline::{BaselineError, Baselines, vmm_api_state};
pub use compare::{ManifestDifference, compare_manifests};
pub use cpu::{CpuFacts, CpuFlags};
pub use error::Error;
pub use files::Part;
pub use loaded::{HeldDisks, LoadOptions, LoadedGolden};
pub use manifest::Manifest;
pub use manifest_records::{
    ExecutableFacts, FileFacts, GoldenDisk, GuestFacts, PayloadFacts, ShapeFacts, SnapshotFacts,
    SnapshotFile, VmmFacts,
};
pub use memory::{CopyReason, LoadedMemory, MemoryBasis, MemoryMode};
pub(crate) use memory_availability::available_memory;
pub use memory_availability::{MemoryLimit, Shortage};
pub use mint::{MintConfig, MintError, MintProgress, MintStep, WarmFailure, WarmTool, mint};
pub use signature::{KeyError, PublicKey, SigningKey};
pub use verify::{GoldenVerification, ManifestMismatch, MemoryNeed, VerifiedFile};

/// The name of the folder with the VMM's own files within a golden snapshot.
const SNAPSHOT: &str = "snapshot";

/// The conditions under which a manifest is accepted. With neither set, any well-formed manifest is accepted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Trust {
    /// If set, the manifest must have a valid signature by this key.
    pub signed_by: Option<PublicKey>,
    /// If set, the manifest must have this digest, which is the [`Golden::digest`] of the wanted golden snapshot.
    pub digest: Option<Digest>,
}

/// A golden snapshot on disk, with its parsed manifest.
#[derive(Clone, Debug)]
pub struct Golden {
    directory: PathBuf,
    manifest: Manifest,
    /// This digest and `manifest_digest` are those of the very bytes that the manifest was parsed from.
    digest: Digest,
    manifest_digest: VerityDigest,
    manifest_length: u64,
}

impl Golden {
    /// Opens the golden snapshot in `directory`: reads its manifest, and checks that every file that a restore needs
    /// exists. The files are not compared with the manifest: see [`load`](Golden::load) and [`verify`](Golden::verify).
    ///
    /// # Errors
    ///
    /// - [`Error::Missing`]: the folder or a file doesn't exist or can't be read.
    /// - [`Error::Malformed`]: the manifest isn't JSON of a manifest's shape.
    /// - [`Error::Format`]: the manifest has another format.
    /// - [`Error::Refused`]: the manifest is well-formed but violates a rule, such as a disk outside the folder.
    pub fn open(directory: &Path) -> Result<Golden, Error> {
        Golden::open_trusted(directory, &Trust::default())
    }

    /// Opens the golden snapshot in `directory` like [`open`](Golden::open), but only if its manifest meets the
    /// conditions of `trust`. They are checked before the manifest is parsed.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Golden::open), and:
    ///
    /// - [`Error::NotPinned`]: the manifest has another digest than the required one.
    /// - [`Error::Unsigned`]: a signature is required, and there is none.
    /// - [`Error::BadSignature`]: the signature isn't one of this manifest by the required key.
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

    /// The absolute path of the golden snapshot's folder, with symbolic links resolved.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The manifest as it was when the golden snapshot was opened.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The SHA-256 of the manifest, as `sha256sum manifest.json` prints it. It identifies the golden snapshot, since
    /// the manifest has the digests of all other files.
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

    /// The path of the folder with the VMM's own files.
    pub fn snapshot(&self) -> PathBuf {
        self.directory.join(SNAPSHOT)
    }

    /// The disks of a machine that is reverted to this snapshot, in the VM's order.
    pub fn disks(&self) -> Vec<Disk> {
        let disks = self.manifest.disks.iter();
        let disks = disks.map(|disk| Disk {
            role: disk.role,
            // A kept copy has a relative path. `join` leaves the absolute path of a read-only disk as it is.
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
