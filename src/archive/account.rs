//! [`Account`]: counts the entries and bytes of a transfer against [`TransferLimits`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::error::shown;
use super::{ArchiveError, FileEntry};
use crate::digest::Digest;

/// The most bytes of all names together, including the targets of symbolic links: 16 MiB. This bounds memory: packing
/// keeps the names of the directories that it is in, and a manifest keeps all names.
pub(super) const MAX_NAMES: u64 = 16 << 20;

/// The largest number of entries and bytes that one transfer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferLimits {
    /// The number of files, directories and symbolic links, including the transferred file or directory itself. Their
    /// names may have at most 16 MiB together, whatever this limit is.
    pub entries: u64,
    /// The size of all files together, in bytes. Holes count like other bytes.
    pub bytes: u64,
}

impl Default for TransferLimits {
    /// 100,000 entries and 1 GiB.
    fn default() -> TransferLimits {
        TransferLimits {
            entries: 100_000,
            bytes: 1 << 30,
        }
    }
}

/// The progress of a transfer. Clones show the same transfer: a caller keeps one and reads it while the transfer runs.
#[derive(Clone, Debug, Default)]
pub struct TransferProgress {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl TransferProgress {
    /// The number of files, directories and symbolic links that were begun so far.
    pub fn entries(&self) -> u64 {
        self.counts.entries.load(Ordering::Relaxed)
    }

    /// The number of bytes of files so far.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }
}

/// The totals of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Totals {
    /// The number of files, directories and symbolic links.
    pub entries: u64,
    /// The size of all files together, in bytes.
    pub bytes: u64,
    /// The SHA-256 of the tar stream.
    pub sha256: Digest,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals {
            entries,
            bytes,
            sha256,
        } = self;
        write!(f, "{entries} entries of {bytes} bytes, {sha256}")
    }
}

/// Counts the entries and bytes of one transfer against its limits, shows its progress, and can keep a manifest.
#[derive(Clone, Debug, Default)]
pub struct Account {
    limits: TransferLimits,
    progress: TransferProgress,
    /// `None` if the caller wants no manifest.
    manifest: Option<Vec<FileEntry>>,
    entries: u64,
    bytes: u64,
    names: u64,
}

impl Account {
    /// An account with these limits and without a manifest.
    pub fn new(limits: TransferLimits) -> Account {
        Account {
            limits,
            ..Account::default()
        }
    }

    /// Makes `progress` show the progress of this transfer.
    #[must_use]
    pub(crate) fn shown_by(self, progress: TransferProgress) -> Account {
        Account { progress, ..self }
    }

    /// Makes the account keep a manifest: a list of all entries with their digests.
    #[must_use]
    pub(crate) fn with_manifest(self) -> Account {
        Account {
            manifest: Some(Vec::new()),
            ..self
        }
    }

    /// The manifest of the entries so far; empty without [`with_manifest`](Self::with_manifest).
    pub(crate) fn into_manifest(self) -> Vec<FileEntry> {
        self.manifest.unwrap_or_default()
    }

    pub(super) fn lists(&self) -> bool {
        self.manifest.is_some()
    }

    /// Counts an entry. This is done before the entry's bytes are read and before its file is created.
    pub(super) fn begin(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        let too_many = |what, limit| ArchiveError::Limit {
            what,
            limit,
            name: shown(&entry.path),
        };
        self.names += (entry.path.len() + entry.target.len()) as u64;
        if self.entries_left() == 0 {
            return Err(too_many("entries", self.limits.entries));
        }
        if self.names > MAX_NAMES {
            return Err(too_many("bytes of names", MAX_NAMES));
        }
        if entry.size > self.limits.bytes.saturating_sub(self.bytes) {
            return Err(too_many("bytes of files", self.limits.bytes));
        }
        self.entries += 1;
        let shown = &self.progress.counts.entries;
        shown.store(self.entries, Ordering::Relaxed);
        Ok(())
    }

    /// Counts bytes of the present file.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let shown = &self.progress.counts.bytes;
        shown.store(self.bytes, Ordering::Relaxed);
    }

    /// Adds a complete entry to the manifest.
    pub(super) fn end(&mut self, entry: &Entry, sha256: Option<Digest>) {
        if let Some(manifest) = &mut self.manifest {
            manifest.push(entry.listed(sha256));
        }
    }

    /// How many further entries the limits allow.
    pub(super) fn entries_left(&self) -> u64 {
        self.limits.entries.saturating_sub(self.entries)
    }

    pub(super) fn limits(&self) -> TransferLimits {
        self.limits
    }

    /// The totals so far. `sha256` is the digest of the stream.
    pub(crate) fn totals(&self, sha256: Digest) -> Totals {
        Totals {
            entries: self.entries,
            bytes: self.bytes,
            sha256,
        }
    }
}
