//! What a transfer may hold, what it has held so far, and what it held in the end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::error::shown;
use super::{ArchiveError, FileEntry};
use crate::digest::Digest;

/// Most bytes of all names together, targets of symbolic links among them: 16 MiB. They are kept, by the one who packs a
/// directory and in the manifest.
pub(super) const MAX_NAMES: u64 = 16 << 20;

/// The most that one transfer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferLimits {
    /// Files, directories and symbolic links, what is transferred itself among them. Their names together have at most
    /// 16 MiB.
    pub entries: u64,
    /// Bytes of all files together; holes count.
    pub bytes: u64,
}

impl Default for TransferLimits {
    /// 100,000 entries, 1 GiB.
    fn default() -> TransferLimits {
        TransferLimits {
            entries: 100_000,
            bytes: 1 << 30,
        }
    }
}

/// How far a transfer has come. Clones show the same transfer, so that one can be kept and read while it goes on.
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
    /// The files, directories and symbolic links so far.
    pub fn entries(&self) -> u64 {
        self.counts.entries.load(Ordering::Relaxed)
    }

    /// The bytes of files so far.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }
}

/// What an archive held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Totals {
    /// Files, directories and symbolic links.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// The digest of the tar stream.
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

/// What a transfer may hold, and who is told of what it holds.
#[derive(Clone, Debug, Default)]
pub struct Account {
    limits: TransferLimits,
    progress: TransferProgress,
    /// `None` where no list is wanted.
    manifest: Option<Vec<FileEntry>>,
    entries: u64,
    bytes: u64,
    names: u64,
}

impl Account {
    /// Counts against these limits.
    pub fn new(limits: TransferLimits) -> Account {
        Account {
            limits,
            ..Account::default()
        }
    }

    /// Shows how far it has come, there too.
    #[must_use]
    pub fn shown_by(self, progress: TransferProgress) -> Account {
        Account { progress, ..self }
    }

    /// Keeps a list of the entries, each with its digest.
    #[must_use]
    pub fn with_manifest(self) -> Account {
        Account {
            manifest: Some(Vec::new()),
            ..self
        }
    }

    /// The list of the entries so far; empty where none was wanted.
    pub fn into_manifest(self) -> Vec<FileEntry> {
        self.manifest.unwrap_or_default()
    }

    pub(super) fn lists(&self) -> bool {
        self.manifest.is_some()
    }

    /// Counts an entry before anything of it is read or made.
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

    /// Counts bytes of the last file.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let shown = &self.progress.counts.bytes;
        shown.store(self.bytes, Ordering::Relaxed);
    }

    /// Lists an entry that is complete.
    pub(super) fn end(&mut self, entry: &Entry, sha256: Option<Digest>) {
        if let Some(manifest) = &mut self.manifest {
            manifest.push(entry.listed(sha256));
        }
    }

    /// How many entries more there may be.
    pub(super) fn entries_left(&self) -> u64 {
        self.limits.entries.saturating_sub(self.entries)
    }

    pub(super) fn limits(&self) -> TransferLimits {
        self.limits
    }

    /// What there was so far, with the digest of the stream.
    pub fn totals(&self, sha256: Digest) -> Totals {
        Totals {
            entries: self.entries,
            bytes: self.bytes,
            sha256,
        }
    }
}
