//! [`ImmutableFile`]: a file whose bytes can't change, because fs-verity protects it or because it is a sealed memory
//! file.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals};
use serde::{Deserialize, Serialize};

use super::copy::fill;
use super::file::{open_regular, own_path};
use super::memory_file::memory_file;
use super::{AccessPolicy, Error, Threads, VerityDigest, fsverity_of, kernel_verity};

/// With these seals, neither the bytes nor the length of a memory file can change, and no seal can be added.
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::GROW)
    .union(SealFlags::SHRINK)
    .union(SealFlags::SEAL);

/// An open file whose bytes no process can change, root included, with their digest.
///
/// The kernel enforces this for as long as the file is open in any process, so a digest needs to be compared only once.
/// Any number of processes may map or read the file at the same time.
#[derive(Debug)]
pub struct ImmutableFile {
    file: File,
    length: u64,
    digest: VerityDigest,
    hashed: u64,
    protection: Protection,
}

/// What keeps the bytes of an [`ImmutableFile`] file from changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Protection {
    /// fs-verity: the file can't be opened for writing, and the kernel checks each page that is read against the
    /// digest. Takes no memory beyond the page cache.
    FsVerity,
    /// A memory file (`memfd_create(2)`) with the seals WRITE, GROW, SHRINK and SEAL. It occupies as much memory as it
    /// has data. A hole occupies memory once it is read through a mapping.
    Sealed,
}

impl ImmutableFile {
    /// Opens the file that `path` leads to. Returns `None` unless fs-verity protects it with the digest `expected`.
    /// Reads none of its bytes.
    ///
    /// # Errors
    ///
    /// [`Error::NotRegular`], and [`Error::Io`] for a file that can't be opened.
    pub(crate) fn by_fs_verity(
        path: &Path,
        expected: &VerityDigest,
    ) -> Result<Option<ImmutableFile>, Error> {
        let (file, status) = open_regular(path)?;
        let is_protected = kernel_verity::measure(&file).as_ref() == Some(expected);
        Ok(is_protected.then_some(ImmutableFile {
            file,
            length: status.length,
            digest: *expected,
            hashed: 0,
            protection: Protection::FsVerity,
        }))
    }

    /// Copies the file that `path` leads to into memory without its holes, seals the copy, and then digests the copy.
    /// So the digest is correct for the copy even if the original changed during the call.
    ///
    /// Blocks for a time that grows with the data of the file. The copy is freed once this process and every process
    /// that inherited it have closed it.
    ///
    /// # Errors
    ///
    /// [`Error::NotRegular`]; [`Error::Changed`] for a file that is truncated or grows during the call;
    /// [`Error::NoSpace`] if memory doesn't suffice; [`Error::Io`] otherwise.
    pub fn seal(path: &Path) -> Result<ImmutableFile, Error> {
        let (original, _) = open_regular(path)?;
        let memory =
            memory_file(c"golden-memory").map_err(Error::io("make a memory file for", path))?;
        fill(&memory, Path::new("/dev/shm"), &original, path)?;
        fcntl_add_seals(&memory, SEALS)
            .map_err(io::Error::from)
            .map_err(Error::io("seal the copy of", path))?;
        // Other processes inherit this descriptor, so it is opened again for reading only.
        let file = File::open(own_path(&memory)).map_err(Error::io("open the copy of", path))?;
        drop(memory);
        let seals = fcntl_get_seals(&file).map_err(io::Error::from);
        if !seals.is_ok_and(|seals| seals.contains(SEALS)) {
            let missing = io::Error::other("the kernel did not keep the seals");
            return Err(Error::io("seal the copy of", path)(missing));
        }
        // The copy is read and not mapped: reading a hole through a mapping would allocate memory for it.
        let hashed = fsverity_of(&file, path, AccessPolicy::ReadOnly, Threads::default())?;
        Ok(ImmutableFile {
            length: hashed.length,
            digest: hashed.digest,
            hashed: hashed.work.hashed,
            file,
            protection: Protection::Sealed,
        })
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest of its bytes.
    pub fn digest(&self) -> VerityDigest {
        self.digest
    }

    /// How many bytes were hashed for the digest: the length without the holes, or 0 under fs-verity.
    pub(crate) fn hashed(&self) -> u64 {
        self.hashed
    }

    /// What keeps its bytes from changing.
    pub(crate) fn protection(&self) -> Protection {
        self.protection
    }
}

impl AsFd for ImmutableFile {
    /// Open for reading only.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::path::PathBuf;

    use memmap2::MmapOptions;

    use super::*;
    use crate::overlay::filesystem::known_directory;
    use crate::overlay::fsverity;

    const MIB: usize = 1 << 20;

    /// A file of 16 MiB with data at its start and in its middle.
    fn sparse_file() -> Option<(tempfile::TempDir, PathBuf)> {
        let directory = known_directory()?;
        let path = directory.path().join("memory");
        let file = File::create(&path).unwrap();
        file.set_len(16 * MIB as u64).unwrap();
        file.write_all_at(&[1; 5000], 0).unwrap();
        file.write_all_at(&[2; MIB], 8 * MIB as u64).unwrap();
        Some((directory, path))
    }

    #[test]
    fn the_copy_has_the_same_bytes_and_no_more_memory_than_data() {
        let Some((_directory, path)) = sparse_file() else {
            return;
        };
        let sealed = ImmutableFile::seal(&path).unwrap();
        let expected = fsverity(&path, AccessPolicy::ReadOnly, Threads::ONE).unwrap();
        assert_eq!(
            (sealed.digest(), sealed.length(), sealed.protection()),
            (expected.digest, expected.length, Protection::Sealed)
        );
        assert!(sealed.hashed() < 3 * MIB as u64, "{}", sealed.hashed());
        let copy = fs::read(own_path(&sealed.file)).unwrap();
        assert!(copy == fs::read(&path).unwrap());
        let allocated = sealed.file.metadata().unwrap().blocks() * 512;
        assert!(allocated < 3 * MIB as u64, "{allocated}");
        fsverity(
            &own_path(&sealed.file),
            AccessPolicy::ReadOnly,
            Threads::ONE,
        )
        .unwrap();
        assert_eq!(sealed.file.metadata().unwrap().blocks() * 512, allocated);
    }

    #[test]
    fn nothing_changes_what_is_sealed() {
        let Some((_directory, path)) = sparse_file() else {
            return;
        };
        let sealed = ImmutableFile::seal(&path).unwrap();
        let refused = |error: io::Error| assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let writer = OpenOptions::new()
            .write(true)
            .open(own_path(&sealed.file))
            .unwrap();
        refused(writer.write_at(b"!", 0).unwrap_err());
        refused(writer.set_len(1).unwrap_err());
        refused(writer.set_len(1 << 40).unwrap_err());
        let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        refused(
            rustix::fs::fallocate(&writer, punch, 0, 4096)
                .unwrap_err()
                .into(),
        );
        refused(
            fcntl_add_seals(&writer, SealFlags::FUTURE_WRITE)
                .unwrap_err()
                .into(),
        );
        let writer = OpenOptions::new()
            .read(true)
            .write(true)
            .open(own_path(&sealed.file))
            .unwrap();
        // SAFETY: the test expects that the mapping is refused. If it were made, nothing would access it.
        refused(unsafe { MmapOptions::new().len(4096).map_mut(&writer) }.unwrap_err());
        fs::write(&path, "the original is another matter").unwrap();
        let again = fsverity(
            &own_path(&sealed.file),
            AccessPolicy::ReadOnly,
            Threads::ONE,
        );
        assert_eq!(again.unwrap().digest, sealed.digest());
    }

    #[test]
    fn what_fs_verity_does_not_protect_is_not_taken_for_protected() {
        let Some((directory, path)) = sparse_file() else {
            return;
        };
        let digest = ImmutableFile::seal(&path).unwrap().digest();
        assert!(
            ImmutableFile::by_fs_verity(&path, &digest)
                .unwrap()
                .is_none()
        );
        for refused in [directory.path(), &directory.path().join("none")] {
            ImmutableFile::by_fs_verity(refused, &digest).unwrap_err();
            ImmutableFile::seal(refused).unwrap_err();
        }
    }
}
