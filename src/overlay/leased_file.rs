//! [`LeasedFile`]: an open file with its digest, and a read lease that shows whether a process has opened it for
//! writing.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::file::{FileStatus, open_regular, reopen};
use super::lease::Lease;
use super::{AccessPolicy, Change, Error, FileProof, Threads, VerityDigest, fsverity_of};
use crate::causes::Causes;
use crate::mutex::lock;

/// An open file with the digest of its bytes, and a read lease on it.
///
/// The file is held through its descriptor, so it doesn't matter if its path leads to another file later. While the
/// lease exists, no process has the file open for writing, so its bytes match the digest. A process that wants to write
/// waits until the lease is given back: call [`give_way`](Self::give_way) often.
#[derive(Debug)]
pub struct LeasedFile {
    path: PathBuf,
    /// The descriptor that other processes inherit. The lease belongs to another open file description, so they can't
    /// give it back.
    file: File,
    digest: VerityDigest,
    length: u64,
    hashed: u64,
    held: Mutex<Held>,
}

/// The present lease.
#[derive(Debug)]
struct Held {
    /// `None` after it was given up.
    lease: Option<Lease<File>>,
    /// How often it was taken.
    taken: u64,
}

/// Identifies one taking of a [`LeasedFile`] file's lease, so that it is distinct from a later lease on the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTaken(u64);

impl LeasedFile {
    /// Opens the file that `path` leads to, takes a lease on it, and digests it. Blocks for a time that grows with the
    /// data of the file.
    ///
    /// # Errors
    ///
    /// [`Error::NoLease`] if no lease is granted: a process has the file open for writing, it belongs to another user,
    /// or its filesystem isn't one on which leases are known to hold (ext4, xfs, btrfs, tmpfs). Otherwise those of
    /// [`fsverity`](super::fsverity).
    pub fn take(path: &Path) -> Result<LeasedFile, Error> {
        let (file, _) = open_regular(path)?;
        let lease = lease(path, &file)?;
        let proof = digest(path, &file)?;
        let held = LeasedFile {
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

    /// Makes sure that a lease is held. If it was lost, takes it again and digests the file again. Returns which lease
    /// is held: a later lease, which another caller may take, proves nothing about the time before it. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::NoLease`] if no lease is granted, and [`Error::Changed`] if the length or the bytes no longer match the
    /// digest.
    pub fn ensure(&self) -> Result<LeaseTaken, Error> {
        let mut held = self.lock();
        if !held.stands() {
            held.lease = None;
            let taken = lease(&self.path, &self.file)?;
            // The length is compared first, so that a file that has grown isn't read.
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

    /// Whether `lease` is still held. If so, the bytes have matched the digest ever since it was taken.
    pub(crate) fn is_held_since(&self, lease: LeaseTaken) -> bool {
        let held = self.lock();
        held.taken == lease.0 && held.stands()
    }

    /// Gives the lease back if a process waits to write to the file. Never blocks.
    pub fn give_way(&self) {
        // A thread that digests the file holds the lock, and checks the lease itself afterwards.
        let Ok(mut held) = self.held.try_lock() else {
            return;
        };
        if held.lease.is_some() && !held.stands() {
            tracing::warn!(path = %self.path.display(), "gave up the lease on the memory file, because a process wants to write to the file");
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
    pub(crate) fn hashed(&self) -> u64 {
        self.hashed
    }

    fn no_lease(&self) -> Error {
        Error::NoLease {
            path: self.path.clone(),
        }
    }

    /// If a thread panicked with the lock held, the worst result is that the lease has to be taken again.
    fn lock(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

impl Held {
    fn stands(&self) -> bool {
        self.lease.as_ref().is_some_and(Lease::is_held)
    }
}

impl AsFd for LeasedFile {
    /// Open for reading only.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Takes a lease on a new open file description of the same file.
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

    /// Writes to the file as another process would: the writer waits until the lease is given up.
    fn write(held: &LeasedFile, path: &Path, bytes: &'static str) {
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
        let held = LeasedFile::take(&path).unwrap();
        let first = held.ensure().unwrap();
        assert_eq!(held.ensure().unwrap(), first);
        assert!(held.is_held_since(first));

        // Between two checks by one user of the file, its bytes change and are restored, and another user calls
        // `ensure`.
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
        let held = LeasedFile::take(&path).unwrap();
        write(&held, &path, "forged");
        let error = held.ensure().unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
        write(&held, &path, "golden");
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        for refused in [held.ensure().map(drop), LeasedFile::take(&path).map(drop)] {
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
