//! A file that is read by its descriptor, under a lease that shows whether a process has opened it for writing.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::file::{FileStatus, open_regular, reopen};
use super::lease::Lease;
use super::{AccessPolicy, Change, Error, FileProof, Threads, VerityDigest, fsverity_of};
use crate::causes::Causes;

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
    hashed: u64,
    held: Mutex<Held>,
}

/// The lease as it is at a moment.
#[derive(Debug)]
struct Held {
    /// `None`: it was given up.
    lease: Option<Lease<File>>,
    /// How often it was taken.
    taken: u64,
}

/// A lease that was taken, told from a later one on the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTaken(u64);

impl Leased {
    /// Opens the file that `path` leads to, takes a lease on it, and then its digest. Blocks for as long as the file has
    /// data.
    ///
    /// # Errors
    ///
    /// [`Error::NoLease`] where none is to be had: some process has it open for writing, it belongs to another user, or its
    /// filesystem isn't one on which leases are known to hold (ext4, xfs, btrfs, tmpfs). Those of
    /// [`fsverity`](super::fsverity).
    pub fn take(path: &Path) -> Result<Leased, Error> {
        let (file, _) = open_regular(path)?;
        let lease = lease(path, &file)?;
        let proof = digest(path, &file)?;
        let held = Leased {
            path: path.to_owned(),
            file,
            digest: proof.digest,
            length: proof.length,
            hashed: proof.work.hashed,
            held: Mutex::new(Held {
                lease: Some(lease),
                taken: 1,
            }),
        };
        match held.is_held_since(LeaseTaken(1)) {
            true => Ok(held),
            false => Err(held.no_lease()),
        }
    }

    /// Makes sure that the lease stands: one that was lost is taken again, and the file digested again. Returns which lease
    /// it is: another caller may take a later one, which says nothing of the time before. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::NoLease`] where none is to be had, and [`Error::Changed`] when length or bytes aren't those of the digest
    /// any more.
    pub fn ensure(&self) -> Result<LeaseTaken, Error> {
        let mut held = self.lock();
        if !held.stands() {
            held.lease = None;
            let taken = lease(&self.path, &self.file)?;
            // The length first: a file that has grown isn't worth reading.
            let found = FileStatus::of(&self.file, &self.path)?.length;
            if found != self.length {
                let before = self.length;
                return Err(Error::changed(&self.path, Change::Length { before, found }));
            }
            if digest(&self.path, &self.file)?.digest != self.digest {
                return Err(Error::changed(&self.path, Change::Bytes));
            }
            held.lease = Some(taken);
            held.taken += 1;
        }
        match held.stands() {
            true => Ok(LeaseTaken(held.taken)),
            false => Err(self.no_lease()),
        }
    }

    /// Whether this very lease stands still: the bytes have been those of the digest since it was taken.
    pub fn is_held_since(&self, lease: LeaseTaken) -> bool {
        let held = self.lock();
        held.taken == lease.0 && held.stands()
    }

    /// Gives the lease back if some process waits for that.
    pub fn give_way(&self) {
        // While another thread digests the file, that thread finds out itself.
        let Ok(mut held) = self.held.try_lock() else {
            return;
        };
        if held.lease.is_some() && !held.stands() {
            tracing::warn!(path = %self.path.display(), "the lease on the memory file is given up: a process wants to write to it");
            held.lease = None;
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

    /// How many bytes were hashed when it was opened: all but the holes.
    pub fn hashed(&self) -> u64 {
        self.hashed
    }

    fn no_lease(&self) -> Error {
        Error::NoLease {
            path: self.path.clone(),
        }
    }

    /// A thread that panics with it leaves at worst a lease that is taken again.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn stands(&self) -> bool {
        self.lease.as_ref().is_some_and(Lease::is_held)
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
    let again = reopen(file).map_err(Error::io("open", path))?;
    Lease::take(again).map_err(|error| {
        tracing::debug!(error = %Causes(&error), path = %path.display(), "no lease");
        Error::NoLease {
            path: path.to_owned(),
        }
    })
}

fn digest(path: &Path, file: &File) -> Result<FileProof<VerityDigest>, Error> {
    fsverity_of(file, path, AccessPolicy::ReadOnly, Threads::default())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::thread;

    use super::*;
    use crate::overlay::filesystem::known_directory;

    /// Writes to the file as another process does: it waits until the lease is given up.
    fn write(held: &Leased, path: &Path, bytes: &'static str) {
        let path = path.to_owned();
        let writer = thread::spawn(move || fs::write(path, bytes).unwrap());
        while !writer.is_finished() {
            held.give_way();
            thread::yield_now();
        }
        writer.join().unwrap();
    }

    #[test]
    fn a_later_lease_says_nothing_of_the_time_before() {
        let Some(directory) = known_directory() else {
            return;
        };
        let path = directory.path().join("memory");
        fs::write(&path, "golden").unwrap();
        let held = Leased::take(&path).unwrap();
        let first = held.ensure().unwrap();
        assert_eq!(held.ensure().unwrap(), first);
        assert!(held.is_held_since(first));

        // Changed and put back, between two looks of one user of the file, and ensured by another.
        write(&held, &path, "forged");
        write(&held, &path, "golden");
        let second = held.ensure().unwrap();
        assert!(held.is_held_since(second));
        assert!(!held.is_held_since(first));
    }

    #[test]
    fn other_bytes_and_writers_are_refused() {
        let Some(directory) = known_directory() else {
            return;
        };
        let path = directory.path().join("memory");
        fs::write(&path, "golden").unwrap();
        let held = Leased::take(&path).unwrap();
        write(&held, &path, "forged");
        let error = held.ensure().unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
        write(&held, &path, "golden");
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        for refused in [held.ensure().map(drop), Leased::take(&path).map(drop)] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::NoLease { .. }), "{error}");
        }
        drop(writer);
        held.ensure().unwrap();
        // The file is held, not its name.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        held.ensure().unwrap();
    }
}
