//! Holding on to a file: its digest, and the kernel's word that it is still the digest of its bytes.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::{Stamp, open_regular};
use super::kernel_verity;
use super::lease::Lease;
use super::{
    AccessPolicy, Change, Error, FileIdentity, Threads, VerityDigest, filesystem, fsverity,
};

/// What vouches for the bytes of a file after its digest was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// A read lease: nobody has opened the file for writing since.
    Leased,
    /// fs-verity: the kernel checks each page that is read, and the file can't be written to by anybody.
    KernelVerity,
    /// Nothing but size, identity and timestamps: no lease was to be had.
    Unleased,
}

/// A file with the digest of its bytes, held on to until this is dropped.
///
/// Whoever wants to write to a leased file waits for this one, up to `/proc/sys/fs/lease-break-time` (45 s unless set
/// otherwise): ask [`is_held`](Hold::is_held) often, and drop the hold once it says no.
#[derive(Debug)]
pub struct Hold {
    path: PathBuf,
    stamp: Stamp,
    digest: VerityDigest,
    hashed: u64,
    guard: Guard,
}

#[derive(Debug)]
enum Guard {
    Lease(Lease<File>),
    Kernel,
    Nothing,
}

impl Hold {
    /// Takes a lease on the regular file that `path` leads to, and then its digest: the whole file is read, unless the
    /// kernel says itself that its digest is the `expected` one.
    ///
    /// Another digest than the expected one is no error here; see [`digest`](Hold::digest). Where no lease is to be
    /// had the file is held as [`HoldKind::Unleased`]: somebody has it open for writing, it is somebody else's, its
    /// filesystem isn't one of which it is known that leases hold there (ext4, xfs, btrfs, tmpfs), or somebody came to
    /// write while it was read.
    ///
    /// # Errors
    ///
    /// Those of [`fsverity`].
    pub fn take(path: &Path, expected: &VerityDigest) -> Result<Hold, Error> {
        let (file, stamp) = open_regular(path)?;
        if kernel_verity::measure(&file).as_ref() == Some(expected) {
            return Ok(Hold {
                path: path.to_owned(),
                stamp,
                digest: *expected,
                hashed: 0,
                guard: Guard::Kernel,
            });
        }
        let lease = match filesystem::is_known(&file) {
            true => Lease::take(file).ok(),
            false => None,
        };
        // It opens the file anew, and reads the same one, unchanged, or the stamp tells.
        let hashed = fsverity(path, AccessPolicy::PreferMapped, Threads::default())?;
        if hashed.identity != stamp.identity {
            return Err(Error::changed(path, Change::Replaced));
        }
        stamp.verify(path)?;
        let guard = match lease {
            Some(lease) if lease.is_held() => Guard::Lease(lease),
            _ => Guard::Nothing,
        };
        Ok(Hold {
            path: path.to_owned(),
            stamp,
            digest: hashed.digest,
            hashed: hashed.work.hashed,
            guard,
        })
    }

    /// The path that it was taken by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The digest of its bytes when it was taken.
    pub fn digest(&self) -> VerityDigest {
        self.digest
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.stamp.length
    }

    /// Which file it is.
    pub fn identity(&self) -> FileIdentity {
        self.stamp.identity
    }

    /// How many bytes were hashed to take it: all but its holes, or none where the kernel knew the digest.
    pub fn hashed(&self) -> u64 {
        self.hashed
    }

    /// What vouches for it.
    pub fn kind(&self) -> HoldKind {
        match self.guard {
            Guard::Lease(_) => HoldKind::Leased,
            Guard::Kernel => HoldKind::KernelVerity,
            Guard::Nothing => HoldKind::Unleased,
        }
    }

    /// Whether the digest is proved to be that of what the path leads to now, and was at every moment since it was
    /// taken. Never for [`HoldKind::Unleased`]. Once it says no it says no for ever.
    pub fn is_held(&self) -> bool {
        match &self.guard {
            Guard::Lease(lease) => lease.is_held() && self.is_unchanged(),
            // Its timestamps may move, by a change of its mode for one, but its bytes can't.
            Guard::Kernel => {
                let now = self.path.metadata();
                now.is_ok_and(|now| FileIdentity::from(&now) == self.stamp.identity)
            }
            Guard::Nothing => false,
        }
    }

    /// Whether the path still leads to the same file, with the same size and timestamps. A renaming there and back
    /// moves them too. Less than [`is_held`](Hold::is_held): a kernel without fine-grained timestamps gives two writes
    /// within one tick (up to 10 ms) the same.
    pub fn is_unchanged(&self) -> bool {
        self.stamp.verify(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;
    use std::thread;

    use tempfile::TempDir;

    use super::*;
    use crate::overlay::filesystem::known_directory;

    fn held_file() -> Option<(TempDir, PathBuf, Hold)> {
        let directory = known_directory()?;
        let path = directory.path().join("memory");
        fs::write(&path, vec![7; 10_000]).unwrap();
        let hold = take(&path);
        assert_eq!(hold.kind(), HoldKind::Leased);
        Some((directory, path, hold))
    }

    fn take(path: &Path) -> Hold {
        let policy = AccessPolicy::ReadOnly;
        let other = fsverity(path, policy, Threads::default()).unwrap().digest;
        let hold = Hold::take(path, &other).unwrap();
        assert_eq!(hold.digest(), other);
        hold
    }

    #[test]
    fn it_stands_while_the_file_is_read_by_anybody() {
        let Some((_directory, path, hold)) = held_file() else {
            return;
        };
        assert!(hold.is_held() && hold.is_unchanged());
        assert_eq!((hold.length(), hold.hashed()), (10_000, 10_000));
        fs::read(&path).unwrap();
        let second = take(&path);
        assert_eq!(second.kind(), HoldKind::Leased);
        drop(second);
        assert!(
            hold.is_held(),
            "two holds of one file don't disturb each other"
        );
    }

    #[test]
    fn what_happens_to_the_file_ends_it() {
        let check = |name: &str, event: fn(&Path)| {
            let Some((_directory, path, hold)) = held_file() else {
                return;
            };
            event(&path);
            assert!(!hold.is_held(), "{name}");
        };
        check("replaced by the same bytes", |path| {
            let other = path.with_extension("other");
            fs::copy(path, &other).unwrap();
            fs::rename(other, path).unwrap();
        });
        check("renamed there and back", |path| {
            let other = path.with_extension("other");
            fs::rename(path, &other).unwrap();
            fs::rename(other, path).unwrap();
        });
        check("removed", |path| fs::remove_file(path).unwrap());
        check("opened for writing, at once", |path| {
            let mut options = OpenOptions::new();
            let options = options.write(true).custom_flags(libc::O_NONBLOCK);
            options.open(path).unwrap_err();
        });
    }

    #[test]
    fn a_writer_goes_on_as_soon_as_it_is_dropped() {
        let Some((_directory, path, hold)) = held_file() else {
            return;
        };
        thread::scope(|scope| {
            let writer = scope.spawn(|| fs::write(&path, "other"));
            while hold.is_held() {
                thread::yield_now();
            }
            drop(hold);
            writer.join().unwrap().unwrap();
        });
        assert_eq!(take(&path).length(), 5);
    }

    #[test]
    fn without_a_lease_there_are_the_stamps() {
        let Some((_directory, path, hold)) = held_file() else {
            return;
        };
        drop(hold);
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        let hold = take(&path);
        assert_eq!(hold.kind(), HoldKind::Unleased);
        assert!(!hold.is_held() && hold.is_unchanged());
        writer.set_len(10_001).unwrap();
        assert!(!hold.is_unchanged());
    }

    #[test]
    fn anything_but_a_regular_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (_, any) = (fs::write(directory.path().join("file"), "bytes"), "file");
        let expected = take(&directory.path().join(any)).digest();
        let error = Hold::take(directory.path(), &expected).unwrap_err();
        assert!(matches!(error, Error::NotRegular { .. }), "{error}");
        let error = Hold::take(&directory.path().join("none"), &expected).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
}
