//! A file that is read by its descriptor, under a lease that shows whether a process has opened it for writing.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::file::open_regular;
use super::lease::Lease;
use super::{AccessPolicy, Error, FileIdentity, Threads, VerityDigest, filesystem, fsverity};

/// An open file with the digest of its bytes, and a read lease on it.
///
/// It is the file and not its name that is held: what a path leads to later doesn't matter. As long as the lease
/// stands no process has the file open for writing, so its bytes are those of the digest. A process that wants to write waits
/// until the lease is given back: call [`give_way`](Self::give_way) often.
#[derive(Debug)]
pub struct Leased {
    path: PathBuf,
    /// What other processes inherit. The lease is on another opening of the file, which they can't give back.
    file: File,
    digest: VerityDigest,
    length: u64,
    lease: Mutex<Option<Lease<File>>>,
}

impl Leased {
    /// Opens the file that `path` leads to, takes a lease on it, and then its digest. Blocks for as long as the file has
    /// data.
    ///
    /// # Errors
    ///
    /// [`Error::NoLease`] where none is to be had: some process has it open for writing, it belongs to another user, or its
    /// filesystem isn't one on which leases are known to hold (ext4, xfs, btrfs, tmpfs). Those of [`fsverity`].
    pub fn take(path: &Path) -> Result<Leased, Error> {
        let (file, stamp) = open_regular(path)?;
        let lease = lease(path, &file)?;
        let (digest, length) = digest(path, &file)?;
        let held = Leased {
            path: path.to_owned(),
            file,
            digest,
            length,
            lease: Mutex::new(Some(lease)),
        };
        match held.is_held() && length == stamp.length {
            true => Ok(held),
            false => Err(held.no_lease()),
        }
    }

    /// Makes sure that the lease stands: one that was lost is taken again, and the file digested again. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::NoLease`] where none is to be had, and [`Error::Changed`] when the bytes aren't those of the digest any
    /// more.
    pub fn ensure(&self) -> Result<(), Error> {
        if self.is_held() {
            return Ok(());
        }
        let taken = lease(&self.path, &self.file)?;
        let (digest, length) = digest(&self.path, &self.file)?;
        if (digest, length) != (self.digest, self.length) {
            return Err(Error::changed(&self.path, super::Change::Written));
        }
        *self.lock() = Some(taken);
        match self.is_held() {
            true => Ok(()),
            false => Err(self.no_lease()),
        }
    }

    /// Whether the lease stands, and has since it was taken: the bytes are those of the digest.
    pub fn is_held(&self) -> bool {
        self.lock().as_ref().is_some_and(Lease::is_held)
    }

    /// Gives the lease back if some process waits for that.
    pub fn give_way(&self) {
        let mut lease = self.lock();
        if lease.as_ref().is_some_and(|lease| !lease.is_held()) {
            tracing::warn!(path = %self.path.display(), "the lease on the memory file is given up: a process wants to write to it");
            *lease = None;
        }
    }

    /// The digest of its bytes.
    pub fn digest(&self) -> VerityDigest {
        self.digest
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn no_lease(&self) -> Error {
        Error::NoLease {
            path: self.path.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lease<File>>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Leased {
    /// Open for reading only.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A lease on another opening of the same file.
fn lease(path: &Path, file: &File) -> Result<Lease<File>, Error> {
    let again = File::open(own_path(file)).map_err(Error::io("open", path))?;
    let none = || Error::NoLease {
        path: path.to_owned(),
    };
    match filesystem::is_known(&again) {
        true => Lease::take(again).map_err(|error| {
            tracing::debug!(%error, path = %path.display(), "no lease");
            none()
        }),
        false => Err(none()),
    }
}

fn digest(path: &Path, file: &File) -> Result<(VerityDigest, u64), Error> {
    let hashed = fsverity(&own_path(file), AccessPolicy::ReadOnly, Threads::default())?;
    let metadata = file.metadata();
    let metadata = metadata.map_err(Error::io("read the attributes of", path))?;
    match hashed.identity == FileIdentity::from(&metadata) {
        true => Ok((hashed.digest, hashed.length)),
        false => Err(Error::changed(path, super::Change::Replaced)),
    }
}

/// The name of an open file for this process itself.
fn own_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
