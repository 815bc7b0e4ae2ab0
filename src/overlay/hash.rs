//! The SHA-256 of a file, with what is known of how it was come by.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::read::{Access, Whole, read_whole};
use super::{Digest, Error, FileIdentity};

/// Whether a file may be mapped to be digested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessPolicy {
    /// Mapped if a read lease is granted, else read. A VMM that opens the file for writing meanwhile waits for some
    /// milliseconds.
    #[default]
    PreferMapped,
    /// Always read: for a file that a VMM has open for writing, or is about to open.
    ReadOnly,
}

/// A digest, and the file it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The digest of all its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub length: u64,
    /// Which file it is. Whoever has it open must have the same.
    pub identity: FileIdentity,
    /// How its bytes were reached.
    pub access: Access,
    /// How long it took.
    pub elapsed: Duration,
}

/// Digests the regular file that `path` leads to, exactly as `sha256sum` does. Symbolic links are followed.
///
/// Blocks for as long as the file is large. An empty file has a digest too, [`Digest::OF_NOTHING`]: whether that will
/// do is for the caller to say. No lease is held, and nothing is mapped, once this returns.
///
/// # Errors
///
/// [`Error::NotRegular`] for anything but a regular file; [`Error::Changed`] if size, device, inode or timestamps
/// were not the same after as before, or the bytes ended early or late; [`Error::Io`] otherwise.
pub fn sha256(path: &Path, policy: AccessPolicy) -> Result<Hashed, Error> {
    let started = Instant::now();
    let Whole {
        sink,
        stamp,
        access,
    } = read_whole::<Sha256>(path, policy)?;
    Ok(Hashed {
        digest: sink.finalize().into(),
        length: stamp.length,
        identity: stamp.identity,
        access,
        elapsed: started.elapsed(),
    })
}
