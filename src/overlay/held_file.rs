//! [`HeldFile`]: a file's digest together with a guarantee by the kernel (a read lease or fs-verity) that the bytes are
//! unchanged.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{FileStatus, open_regular, reopen};
use super::hash::Opened;
use super::kernel_verity;
use super::lease::Lease;
use super::{AccessPolicy, Basis, Error, FileIdentity, FileProof, Threads, VerityDigest, Work};
use crate::causes::Causes;

/// A file with the digest of its bytes, and the kernel's guarantee that they don't change unnoticed until this is
/// dropped.
///
/// The hold is on the file that was opened, through its descriptor. If another file takes its name,
/// [`is_held`](HeldFile::is_held) returns false.
///
/// A process that opens a leased file for writing waits until this hold is dropped, at most for
/// `/proc/sys/fs/lease-break-time` (45 s by default). So call [`is_held`](HeldFile::is_held) often, and drop the hold
/// once it returns false.
#[derive(Debug)]
pub struct HeldFile {
    path: PathBuf,
    taken: FileProof<VerityDigest>,
    guard: Guard,
}

#[derive(Debug)]
enum Guard {
    Lease(Lease<File>),
    /// The file is kept open, so that its inode number can't be reused.
    Kernel(#[expect(dead_code, reason = "held only to keep the file open")] File),
}

/// The result of [`HeldFile::take`].
#[derive(Debug)]
pub enum HeldFileAttempt {
    /// The file is held. It was digested, unless fs-verity protects it with the expected digest.
    Held(HeldFile),
    /// No lease was granted, so a digest may be outdated at once. Another process has the file open for writing or
    /// opened it while it was read, the file belongs to another user, or its filesystem isn't one on which leases are
    /// known to hold (ext4, xfs, btrfs, tmpfs).
    Unleased(UnleasedFile),
    /// The file has this length in bytes and not the expected one. It was not digested.
    OtherLength(u64),
}

/// An open file of the expected length, without a lease.
#[derive(Debug)]
pub struct UnleasedFile {
    path: PathBuf,
    file: File,
    status: FileStatus,
}

impl UnleasedFile {
    /// Which file it is.
    pub(crate) fn identity(&self) -> FileIdentity {
        self.status.identity
    }

    /// Computes its digest now. Reads at most the expected length.
    ///
    /// # Errors
    ///
    /// Those of [`fsverity`](super::fsverity).
    pub fn fsverity(&self) -> Result<FileProof<VerityDigest>, Error> {
        let opened = Opened::new(&self.file, self.status, AccessPolicy::PreferMapped);
        let proof = opened.fsverity(Threads::default());
        proof.map_err(|error| error.of(&self.path, self.status.length))
    }
}

impl HeldFile {
    /// Opens the regular file that `path` leads to, compares its length with `length`, takes a read lease on it and
    /// digests it. If fs-verity protects the file with the `expected` digest, no lease is taken and nothing is read.
    ///
    /// A digest that differs from `expected` is not an error: compare [`taken`](HeldFile::taken). At most `length`
    /// bytes are read.
    ///
    /// # Errors
    ///
    /// Those of [`fsverity`](super::fsverity).
    pub fn take(
        path: &Path,
        length: u64,
        expected: &VerityDigest,
    ) -> Result<HeldFileAttempt, Error> {
        let (file, status) = open_regular(path)?;
        if status.length != length {
            return Ok(HeldFileAttempt::OtherLength(status.length));
        }
        if kernel_verity::measure(&file).as_ref() == Some(expected) {
            return Ok(HeldFileAttempt::Held(HeldFile {
                path: path.to_owned(),
                taken: vouched_for(*expected, status, Basis::KernelVerity),
                guard: Guard::Kernel(file),
            }));
        }
        let opened = UnleasedFile {
            path: path.to_owned(),
            file,
            status,
        };
        let lease = match reopen(&opened.file).and_then(Lease::take) {
            Ok(lease) => lease,
            Err(error) => {
                tracing::debug!(error = %Causes(&error), path = %path.display(), "no lease");
                return Ok(HeldFileAttempt::Unleased(opened));
            }
        };
        let taken = opened.fsverity()?;
        Ok(match lease.is_held() {
            true => HeldFileAttempt::Held(HeldFile {
                path: opened.path,
                taken,
                guard: Guard::Lease(lease),
            }),
            false => HeldFileAttempt::Unleased(opened),
        })
    }

    /// The path that was given to [`take`](HeldFile::take).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The proof from [`take`](HeldFile::take): the digest, and the work that it cost.
    pub fn taken(&self) -> &FileProof<VerityDigest> {
        &self.taken
    }

    /// A proof that the file still has the digest, or `None` if [`is_held`](HeldFile::is_held) is false. Its basis
    /// names the guarantee ([`Basis::Leased`] or [`Basis::KernelVerity`]). Reads nothing.
    pub(crate) fn proof(&self) -> Option<FileProof<VerityDigest>> {
        let FileProof {
            digest,
            length,
            identity,
            ..
        } = self.taken;
        let basis = match &self.guard {
            Guard::Lease(_) => Basis::Leased,
            Guard::Kernel(_) => Basis::KernelVerity,
        };
        let status = FileStatus { identity, length };
        self.is_held().then(|| vouched_for(digest, status, basis))
    }

    /// Whether the path leads to the held file now, and its bytes are proved to have had the digest at every moment
    /// since [`take`](HeldFile::take).
    ///
    /// A lost lease stays lost. If the path leads to another file for a while and then to this one again, the result is
    /// true again, because the guarantee on this file's bytes was never lost.
    pub fn is_held(&self) -> bool {
        let stands = match &self.guard {
            Guard::Lease(lease) => lease.is_held(),
            Guard::Kernel(_) => true,
        };
        let leads_here = |now| FileIdentity::from(&now) == self.taken.identity;
        stands && self.path.metadata().is_ok_and(leads_here)
    }
}

/// The proof of a file of which nothing was read, because the kernel guarantees its bytes.
fn vouched_for(digest: VerityDigest, status: FileStatus, basis: Basis) -> FileProof<VerityDigest> {
    FileProof {
        digest,
        length: status.length,
        identity: status.identity,
        basis,
        work: Work {
            skipped: status.length,
            ..Work::default()
        },
        elapsed: Duration::ZERO,
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

    fn held_file() -> Option<(TempDir, PathBuf, HeldFile)> {
        let directory = known_directory()?;
        let path = directory.path().join("memory");
        fs::write(&path, vec![7; 10_000]).unwrap();
        let hold = hold(&path);
        Some((directory, path, hold))
    }

    /// Takes a hold, expecting the length and digest that the file has now.
    fn take(path: &Path) -> HeldFileAttempt {
        let bytes = fs::read(path).unwrap();
        HeldFile::take(path, bytes.len() as u64, &VerityDigest::of(&bytes)).unwrap()
    }

    #[track_caller]
    fn hold(path: &Path) -> HeldFile {
        match take(path) {
            HeldFileAttempt::Held(hold) => hold,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_stands_while_other_processes_read_the_file() {
        let Some((_directory, path, first)) = held_file() else {
            return;
        };
        let digest = VerityDigest::of(&[7; 10_000]);
        assert_eq!(first.taken().digest, digest);
        assert_eq!(
            (first.taken().length, first.taken().work.hashed),
            (10_000, 10_000)
        );
        assert_eq!(first.taken().basis, Basis::Mapped);
        fs::read(&path).unwrap();
        drop(hold(&path));
        let proof = first
            .proof()
            .expect("two holds of one file don't disturb each other");
        assert_eq!((proof.digest, proof.length), (digest, 10_000));
        assert_eq!(proof.identity, first.taken().identity);
        assert_eq!(
            (proof.basis, proof.elapsed),
            (Basis::Leased, Duration::ZERO)
        );
        let nothing_read = Work {
            skipped: 10_000,
            ..Work::default()
        };
        assert_eq!(proof.work, nothing_read);
    }

    #[test]
    fn what_happens_to_the_file_ends_it() {
        let check = |name: &str, event: fn(&Path)| {
            let Some((_directory, path, hold)) = held_file() else {
                return;
            };
            event(&path);
            assert!(!hold.is_held() && hold.proof().is_none(), "{name}");
        };
        check("replaced by the same bytes", |path| {
            let other = path.with_extension("other");
            fs::copy(path, &other).unwrap();
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
    fn what_changes_no_byte_leaves_it() {
        let Some((_directory, path, hold)) = held_file() else {
            return;
        };
        let other = path.with_extension("other");
        fs::rename(&path, &other).unwrap();
        assert!(!hold.is_held());
        fs::rename(&other, &path).unwrap();
        assert!(hold.is_held());
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
        fs::hard_link(&path, &other).unwrap();
        assert!(hold.is_held());
    }

    #[test]
    fn a_writer_goes_on_as_soon_as_it_is_dropped() {
        let Some((_directory, path, first)) = held_file() else {
            return;
        };
        thread::scope(|scope| {
            let writer = scope.spawn(|| fs::write(&path, "other"));
            while first.is_held() {
                thread::yield_now();
            }
            drop(first);
            writer.join().unwrap().unwrap();
        });
        assert_eq!(hold(&path).taken().length, 5);
    }

    #[test]
    fn with_a_writer_there_is_no_lease_but_a_digest_of_the_moment() {
        let Some((_directory, path, hold)) = held_file() else {
            return;
        };
        drop(hold);
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        let HeldFileAttempt::Unleased(unleased) = take(&path) else {
            panic!("held with a writer");
        };
        let expected = FileIdentity::from(&path.metadata().unwrap());
        assert_eq!(unleased.identity(), expected);
        let proof = unleased.fsverity().unwrap();
        assert_eq!(proof.digest, VerityDigest::of(&[7; 10_000]));
        assert_eq!((proof.basis, proof.identity), (Basis::Read, expected));
        // The file has grown; the bytes beyond the expected length aren't read.
        writer.set_len(1 << 40).unwrap();
        let error = unleased.fsverity().unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
    }

    #[test]
    fn another_length_is_told_and_nothing_is_hashed() {
        let Some((_directory, path, hold)) = held_file() else {
            return;
        };
        let digest = hold.taken().digest;
        drop(hold);
        for length in [0, 9_999, 10_001, 1 << 42] {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(length).unwrap();
            drop(file);
            let taken = HeldFile::take(&path, 10_000, &digest).unwrap();
            assert!(
                matches!(taken, HeldFileAttempt::OtherLength(found) if found == length),
                "{taken:?}"
            );
        }
    }

    #[test]
    fn another_digest_is_told() {
        let Some((_directory, path, _hold)) = held_file() else {
            return;
        };
        let other = VerityDigest::of(b"other");
        let HeldFileAttempt::Held(hold) = HeldFile::take(&path, 10_000, &other).unwrap() else {
            panic!("not held");
        };
        assert_eq!(hold.taken().digest, VerityDigest::of(&[7; 10_000]));
    }

    #[test]
    fn anything_but_a_regular_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let expected = VerityDigest::of(b"");
        let error = HeldFile::take(directory.path(), 0, &expected).unwrap_err();
        assert!(matches!(error, Error::NotRegular { .. }), "{error}");
        let error = HeldFile::take(&directory.path().join("none"), 0, &expected).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
}
