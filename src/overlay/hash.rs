//! The digests of a file, with what is known of how they were come by.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::read::{Access, Whole, read_whole};
use super::stream::Stream;
use super::verity::{Both, Tree};
use super::{Digest, Error, FileIdentity, VerityDigest};

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

/// What a digest took, in bytes of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Put through a hash function, each byte counted once. A SHA-256 takes the zeros of holes too, an fs-verity digest
    /// doesn't.
    pub hashed: u64,
    /// Reached through a memory map.
    pub mapped: u64,
    /// Reached by reading.
    pub read: u64,
    /// Holes, which were not looked at. With the two before they make up the length of the file.
    pub skipped: u64,
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

/// A digest, and the file it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Hashed<D = Digest> {
    /// The digest of all its bytes.
    pub digest: D,
    /// How many bytes it has.
    pub length: u64,
    /// Which file it is. Whoever has it open must have the same.
    pub identity: FileIdentity,
    /// How its bytes were reached.
    pub access: Access,
    /// What the digest took.
    pub work: Work,
    /// How long it took. In JSON as whole microseconds, `elapsed_us`.
    #[serde(rename = "elapsed_us", serialize_with = "as_micros")]
    pub elapsed: Duration,
}

fn as_micros<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// Both digests of a file, of the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// As `sha256sum` has it.
    pub sha256: Digest,
    /// As `fsverity digest` has it.
    pub fsverity: VerityDigest,
    /// How many bytes the file has.
    pub length: u64,
    /// Which file it is.
    pub identity: FileIdentity,
    /// How its bytes were reached.
    pub access: Access,
    /// What the digests took. Each byte counts once.
    pub work: Work,
    /// How long it took.
    pub elapsed: Duration,
}

/// Digests the regular file that `path` leads to, exactly as `sha256sum` does. Symbolic links are followed.
///
/// Blocks for as long as the file is large; holes are not read. An empty file has a digest too,
/// [`Digest::OF_NOTHING`]: whether that will do is for the caller to say. No lease is held, and nothing is mapped, once
/// this returns.
///
/// # Errors
///
/// [`Error::NotRegular`] for anything but a regular file; [`Error::Changed`] if size, device, inode or timestamps
/// were not the same after as before, or the bytes ended early or late; [`Error::Io`] otherwise.
pub fn sha256(path: &Path, policy: AccessPolicy) -> Result<Hashed, Error> {
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
) -> Result<Hashed, Error> {
    let started = Instant::now();
    let whole = read_whole(path, policy, progress, |_| Stream::default())?;
    let hashed = whole.stamp.length;
    Ok(whole.hashed(started, hashed, Stream::finish))
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
) -> Result<Hashed<VerityDigest>, Error> {
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
) -> Result<Hashed<VerityDigest>, Error> {
    let started = Instant::now();
    let whole = read_whole(path, policy, progress, |length| Tree::new(length, threads))?;
    let hashed = whole.stamp.length - whole.work.skipped;
    Ok(whole.hashed(started, hashed, Tree::finish))
}

/// Both digests in one pass, of the same bytes, on two threads: for what is digested once and compared many times.
///
/// # Errors
///
/// Those of [`sha256`].
pub fn digests(path: &Path, policy: AccessPolicy) -> Result<Digests, Error> {
    let started = Instant::now();
    let whole = read_whole(path, policy, &Progress::default(), Both::new)?;
    let hashed = whole.stamp.length;
    let both = whole.hashed(started, hashed, Both::finish);
    let (sha256, fsverity) = both.digest;
    Ok(Digests {
        sha256,
        fsverity,
        length: both.length,
        identity: both.identity,
        access: both.access,
        work: both.work,
        elapsed: both.elapsed,
    })
}

impl<S> Whole<S> {
    /// The digest that the sink comes to, with everything that is known of it.
    fn hashed<D>(self, started: Instant, hashed: u64, finish: impl FnOnce(S) -> D) -> Hashed<D> {
        Hashed {
            digest: finish(self.sink),
            length: self.stamp.length,
            identity: self.stamp.identity,
            access: self.access,
            work: Work {
                hashed,
                ..self.work
            },
            elapsed: started.elapsed(),
        }
    }
}
