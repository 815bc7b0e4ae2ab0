//! Computes the digests of a file, given by its path or as an open file: [`sha256`], [`fsverity`] and [`record`].
//!
//! A digest belongs to the file that was opened, even if another file takes its name later.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::file::{FileStatus, open_regular};
use super::read::{ReadError, Sink, read_whole};
use super::stream::Stream;
use super::verity::{Tree, TwoDigests};
use super::{Error, FileProof, RecordedBytes, VerityDigest, Work};

/// Whether a file may be mapped to be digested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessPolicy {
    /// The file is mapped if a read lease is granted, otherwise it is read. A VMM that opens the file for writing
    /// during the call waits for some milliseconds.
    #[default]
    PreferMapped,
    /// The file is always read. For a file that a VMM has open for writing, or is about to open.
    ReadOnly,
}

/// How many threads may work on a digest, the calling thread included. The default is the number of cores that the
/// process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Threads(NonZeroUsize);

impl Threads {
    /// The calling thread alone.
    pub const ONE: Threads = Threads(NonZeroUsize::MIN);

    /// The most threads that are used. With more of them the disk would be the bottleneck.
    const MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();

    /// `count` threads; a number above 64 becomes 64.
    pub fn new(count: NonZeroUsize) -> Threads {
        Threads(count.min(Threads::MAX))
    }

    /// The number of threads, from 1 to 64.
    pub const fn get(self) -> usize {
        self.0.get()
    }
}

impl Default for Threads {
    fn default() -> Threads {
        std::thread::available_parallelism().map_or(Threads::ONE, Threads::new)
    }
}

/// The progress of a digest, which another thread can read while the digest is computed.
#[derive(Debug, Default)]
pub struct Progress {
    length: AtomicU64,
    reached: AtomicU64,
}

impl Progress {
    /// The length of the file in bytes; 0 until it is known.
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    /// How many bytes are digested. The count starts again at 0 if the file turns out not to be usable by a mapping and
    /// has to be read.
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
/// Blocks for a time that grows with the file's length; holes are not read. An empty file has a digest too,
/// [`Digest::OF_NOTHING`](super::Digest::OF_NOTHING), and the caller decides whether to accept it. When this returns,
/// it holds no lease and no mapping.
///
/// # Errors
///
/// [`Error::NotRegular`] for anything but a regular file; [`Error::Changed`] if its length changed during the call or
/// doesn't match the bytes that could be read; [`Error::Io`] otherwise.
pub fn sha256(path: &Path, policy: AccessPolicy) -> Result<FileProof, Error> {
    sha256_watched(path, policy, &Progress::default())
}

/// Like [`sha256`], and reports its progress to another thread through `progress`.
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

/// Like [`sha256`], for a file that is open for reading. `name` is its name in errors.
///
/// # Errors
///
/// Those of [`sha256`].
pub(crate) fn sha256_of(
    file: &File,
    name: &Path,
    policy: AccessPolicy,
) -> Result<FileProof, Error> {
    let status = FileStatus::of(file, name)?;
    let proof = Opened::new(file, status, policy).sha256();
    proof.map_err(|error| error.of(name, status.length))
}

/// Digests the regular file that `path` leads to, exactly as Linux fs-verity does with SHA-256, blocks of 4 KiB and no
/// salt, on up to `threads` threads. Symbolic links are followed.
///
/// Blocks for a time that grows with the data of the file: holes are neither read nor hashed. The filesystem need not
/// support fs-verity, because the digest is computed here and the file is only read. When this returns, it holds no
/// lease and no mapping, and its threads have ended.
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

/// Like [`fsverity`], and reports its progress to another thread through `progress`.
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

/// Like [`fsverity`], for a file that is open for reading. `name` is its name in errors.
///
/// # Errors
///
/// Those of [`sha256`].
pub(crate) fn fsverity_of(
    file: &File,
    name: &Path,
    policy: AccessPolicy,
    threads: Threads,
) -> Result<FileProof<VerityDigest>, Error> {
    let status = FileStatus::of(file, name)?;
    let proof = Opened::new(file, status, policy).fsverity(threads);
    proof.map_err(|error| error.of(name, status.length))
}

/// Digests the regular file that `path` leads to both as [`sha256`] and as [`fsverity`] do, in one pass on two threads.
/// Returns the two digests with the file's length, as the manifest of a golden snapshot records them. Symbolic links
/// are followed.
///
/// Blocks for a time that grows with the file's length; holes are not read. When this returns, it holds no lease and no
/// mapping.
///
/// # Errors
///
/// Those of [`sha256`].
pub fn record(path: &Path, policy: AccessPolicy) -> Result<FileProof<RecordedBytes>, Error> {
    let (file, status) = open_regular(path)?;
    let proof = Opened::new(&file, status, policy).both();
    proof.map_err(|error| error.of(path, status.length))
}

/// An open file to be digested, with the length that it must keep during the work.
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
        let finish = |both: TwoDigests| {
            let (sha256, fsverity) = both.finish();
            RecordedBytes {
                sha256,
                fsverity,
                length,
            }
        };
        self.walk(|| TwoDigests::new(length), finish, |_skipped| length)
    }

    /// Feeds the file to a sink. `hashed` maps the number of skipped bytes to the number of hashed bytes.
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
