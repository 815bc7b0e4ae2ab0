//! The digests of a file, by its path or as it is open.
//!
//! A digest is of the one file that was opened, whatever has its name later.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::file::{FileStatus, open_regular};
use super::read::{ReadError, Sink, read_whole};
use super::stream::Stream;
use super::verity::{Both, Tree};
use super::{Error, FileProof, RecordedBytes, VerityDigest, Work};

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

/// How many threads may work on a digest, the calling one among them. By default as many as the process may use cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Threads(NonZeroUsize);

impl Threads {
    /// The calling thread alone.
    pub const ONE: Threads = Threads(NonZeroUsize::MIN);

    /// No more are ever used: the disk would not keep up.
    const MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();

    /// So many threads, at most 64.
    pub fn new(count: NonZeroUsize) -> Threads {
        Threads(count.min(Threads::MAX))
    }

    /// How many they are.
    pub const fn get(self) -> usize {
        self.0.get()
    }
}

impl Default for Threads {
    fn default() -> Threads {
        std::thread::available_parallelism().map_or(Threads::ONE, Threads::new)
    }
}

/// How far a digest is, for another thread to look at.
#[derive(Debug, Default)]
pub struct Progress {
    length: AtomicU64,
    reached: AtomicU64,
}

impl Progress {
    /// The length of the file in bytes, 0 while it isn't known yet.
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    /// Up to which byte the file is digested. It begins anew if mapping had to be given up for reading.
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self, length: u64) {
        self.length.store(length, Ordering::Relaxed);
        self.reach(0);
    }

    pub(super) fn reach(&self, offset: u64) {
        self.reached.store(offset, Ordering::Relaxed);
    }
}

/// Digests the regular file that `path` leads to, exactly as `sha256sum` does. Symbolic links are followed.
///
/// Blocks for as long as the file is large; holes are not read. An empty file has a digest too,
/// [`Digest::OF_NOTHING`](super::Digest::OF_NOTHING): whether that will do is for the caller to say. No lease is held, and nothing is mapped, once
/// this returns.
///
/// # Errors
///
/// [`Error::NotRegular`] for anything but a regular file; [`Error::Changed`] if its length was not the same after as
/// before, or the bytes ended early or late; [`Error::Io`] otherwise.
pub fn sha256(path: &Path, policy: AccessPolicy) -> Result<FileProof, Error> {
    sha256_watched(path, policy, &Progress::default())
}

/// The same as [`sha256`], seen from another thread through `progress`.
///
/// # Errors
///
/// Those of [`sha256`].
pub fn sha256_watched(
    path: &Path,
    policy: AccessPolicy,
    progress: &Progress,
) -> Result<FileProof, Error> {
    let (file, status) = open_regular(path)?;
    let opened = Opened::new(&file, status, policy);
    let proof = opened.watched_by(progress).sha256();
    proof.map_err(|error| error.of(path, status.length))
}

/// The same as [`sha256`] for a file that is open for reading. `name` is its name in errors.
///
/// # Errors
///
/// Those of [`sha256`].
pub fn sha256_of(file: &File, name: &Path, policy: AccessPolicy) -> Result<FileProof, Error> {
    let status = FileStatus::of(file, name)?;
    let proof = Opened::new(file, status, policy).sha256();
    proof.map_err(|error| error.of(name, status.length))
}

/// Digests the regular file that `path` leads to, exactly as Linux fs-verity does with SHA-256, blocks of 4 KiB and
/// no salt, on up to so many `threads`. Symbolic links are followed.
///
/// Blocks for as long as the file has data: holes cost neither reading nor hashing. The file is only read, and its
/// filesystem need not know fs-verity. No lease is held, nothing is mapped and no thread is left once this returns.
///
/// # Errors
///
/// Those of [`sha256`].
pub fn fsverity(
    path: &Path,
    policy: AccessPolicy,
    threads: Threads,
) -> Result<FileProof<VerityDigest>, Error> {
    fsverity_watched(path, policy, threads, &Progress::default())
}

/// The same as [`fsverity`], seen from another thread through `progress`.
///
/// # Errors
///
/// Those of [`sha256`].
pub fn fsverity_watched(
    path: &Path,
    policy: AccessPolicy,
    threads: Threads,
    progress: &Progress,
) -> Result<FileProof<VerityDigest>, Error> {
    let (file, status) = open_regular(path)?;
    let opened = Opened::new(&file, status, policy);
    let proof = opened.watched_by(progress).fsverity(threads);
    proof.map_err(|error| error.of(path, status.length))
}

/// The same as [`fsverity`] for a file that is open for reading. `name` is its name in errors.
///
/// # Errors
///
/// Those of [`sha256`].
pub fn fsverity_of(
    file: &File,
    name: &Path,
    policy: AccessPolicy,
    threads: Threads,
) -> Result<FileProof<VerityDigest>, Error> {
    let status = FileStatus::of(file, name)?;
    let proof = Opened::new(file, status, policy).fsverity(threads);
    proof.map_err(|error| error.of(name, status.length))
}

/// Both digests of the file that `path` leads to, and its length, as a manifest records them: in one pass, on two
/// threads.
///
/// # Errors
///
/// Those of [`sha256`].
pub fn record(path: &Path, policy: AccessPolicy) -> Result<FileProof<RecordedBytes>, Error> {
    let (file, status) = open_regular(path)?;
    let proof = Opened::new(&file, status, policy).both();
    proof.map_err(|error| error.of(path, status.length))
}

/// An open file that is about to be digested, with the length that it must keep meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Opened<'a> {
    file: &'a File,
    status: FileStatus,
    policy: AccessPolicy,
    progress: Option<&'a Progress>,
}

impl<'a> Opened<'a> {
    pub(super) fn new(file: &'a File, status: FileStatus, policy: AccessPolicy) -> Opened<'a> {
        Opened {
            file,
            status,
            policy,
            progress: None,
        }
    }

    fn watched_by(self, progress: &'a Progress) -> Opened<'a> {
        Opened {
            progress: Some(progress),
            ..self
        }
    }

    pub(super) fn sha256(self) -> Result<FileProof, ReadError> {
        let all = |_skipped| self.status.length;
        self.walk(Stream::default, Stream::finish, all)
    }

    pub(super) fn fsverity(self, threads: Threads) -> Result<FileProof<VerityDigest>, ReadError> {
        let length = self.status.length;
        let data = |skipped| length - skipped;
        self.walk(|| Tree::new(length, threads), Tree::finish, data)
    }

    pub(super) fn both(self) -> Result<FileProof<RecordedBytes>, ReadError> {
        let length = self.status.length;
        let finish = |both: Both| {
            let (sha256, fsverity) = both.finish();
            RecordedBytes {
                sha256,
                fsverity,
                length,
            }
        };
        self.walk(|| Both::new(length), finish, |_skipped| length)
    }

    /// Feeds the file to a sink. `hashed` says of how many skipped bytes how many were hashed.
    fn walk<S: Sink, D>(
        self,
        new_sink: impl Fn() -> S,
        finish: impl FnOnce(S) -> D,
        hashed: impl FnOnce(u64) -> u64,
    ) -> Result<FileProof<D>, ReadError> {
        let started = Instant::now();
        let unwatched = Progress::default();
        let progress = self.progress.unwrap_or(&unwatched);
        let length = self.status.length;
        let whole = read_whole(self.file, length, self.policy, progress, new_sink)?;
        Ok(FileProof {
            digest: finish(whole.sink),
            length,
            identity: self.status.identity,
            basis: whole.basis,
            work: Work {
                hashed: hashed(whole.work.skipped),
                ..whole.work
            },
            elapsed: started.elapsed(),
        })
    }
}
