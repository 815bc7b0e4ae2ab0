//! Digests the executable that a VMM's process runs, and remembers the digest for as long as a lease or the file's
//! owner guarantees that the file is unchanged ([`KnownExecutable`]).

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use super::{Error, ExecutableFacts};
use crate::causes::Causes;
use crate::mutex::lock;
use crate::offload::blocking;
use crate::overlay::{
    AccessPolicy, Digest, FileIdentity, Lease, open_regular, own_path, reopen, sha256, sha256_of,
};
use crate::vmm::Process;

impl ExecutableFacts {
    /// Digests the executable that `process` runs. This is the file that was started, even if its path leads to another
    /// file by now.
    ///
    /// # Errors
    ///
    /// [`Error::Digest`] if the executable can't be read, and [`Error::Host`] if the process has ended or its entries
    /// in `/proc` can't be read.
    pub(crate) async fn of_process(process: &Process) -> Result<ExecutableFacts, Error> {
        let path = path(process);
        let proof = blocking(move || sha256(&path, AccessPolicy::PreferMapped)).await;
        let proof = proof.map_err(Error::Digest)?;
        check_alive(process)?;
        Ok(ExecutableFacts {
            length: proof.length,
            sha256: proof.digest,
        })
    }
}

/// The path in `/proc` that leads to the executable of a process.
pub(super) fn path(process: &Process) -> PathBuf {
    format!("/proc/{}/exe", process.pid()).into()
}

/// Checks that the process still exists. If it does, its id was never another process's, so [`path`] led to its
/// executable.
pub(super) fn check_alive(process: &Process) -> Result<(), Error> {
    let alive = process.holds_listener().map_err(|source| Error::Host {
        what: "the VMM's executable",
        path: path(process),
        source: std::io::Error::other(source),
    });
    alive.map(drop)
}

/// The digest of the executable that VMMs run, remembered for as long as a [`Guard`] shows that the file is unchanged.
#[derive(Debug, Default)]
pub(super) struct KnownExecutable(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    identity: FileIdentity,
    digest: Digest,
    guard: Guard,
}

/// The reason why a file's bytes can't have changed unnoticed. It keeps the file open, so that the file's inode number
/// can't be given to another file.
#[derive(Debug)]
enum Guard {
    /// A read lease: no process has opened the file for writing since the lease was taken.
    Lease(Lease<File>),
    /// The file belongs to root, and no other user may write to it. Root is trusted.
    Owner(File),
}

impl Guard {
    /// Takes a lease, or checks the owner where no lease is granted. Returns `None` for a file to which another user
    /// than root, or a process of this user, may write without being noticed.
    fn take(file: &File) -> Option<Guard> {
        match reopen(file).and_then(Lease::take) {
            Ok(lease) => Some(Guard::Lease(lease)),
            Err(error) => {
                tracing::debug!(error = %Causes(&error), "no lease was granted on the VMM's executable");
                let again = reopen(file).ok()?;
                only_root_writes(&again).then_some(Guard::Owner(again))
            }
        }
    }

    fn stands(&self) -> bool {
        match self {
            Guard::Lease(lease) => lease.is_held(),
            Guard::Owner(file) => only_root_writes(file),
        }
    }
}

/// Whether the file belongs to root, and neither this process nor a process of another user may write to it.
fn only_root_writes(file: &File) -> bool {
    const BY_OTHERS: u32 = 0o022;
    let Ok(metadata) = file.metadata() else {
        return false;
    };
    let path = own_path(file);
    // `accessat` also considers the capabilities of this process, which the file's mode does not show.
    let ours = accessat(CWD, &path, Access::WRITE_OK, AtFlags::EACCESS);
    metadata.uid() == 0
        && metadata.mode() & BY_OTHERS == 0
        && matches!(ours, Err(Errno::ACCESS | Errno::ROFS))
}

impl KnownExecutable {
    /// Returns the SHA-256 of the file that `exe` leads to. It is computed, unless it is remembered of this file and
    /// the guard has stood since. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Digest`] if the file can't be read.
    pub(super) fn digest(&self, exe: &Path) -> Result<Digest, Error> {
        let (file, status) = open_regular(exe).map_err(Error::Digest)?;
        if let Some(known) = &*self.lock()
            && known.identity == status.identity
            && known.guard.stands()
        {
            return Ok(known.digest);
        }
        // The guard is taken before the digest, so that a write during the digest is noticed.
        let guard = Guard::take(&file);
        let proof = sha256_of(&file, exe, AccessPolicy::PreferMapped).map_err(Error::Digest)?;
        *self.lock() = guard.filter(Guard::stands).map(|guard| Known {
            identity: proof.identity,
            digest: proof.digest,
            guard,
        });
        Ok(proof.digest)
    }

    /// Gives the lease back if a process waits to open the file for writing.
    pub(super) fn give_way(&self) {
        let mut known = self.lock();
        if known.as_ref().is_some_and(|known| !known.guard.stands()) {
            *known = None;
        }
    }

    /// Ignores poisoning: the value is replaced in one assignment, so a panic can't leave it half-changed.
    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Writes to the file in place from another thread, and gives the lease back so that the write can go on.
    fn write(known: &KnownExecutable, path: &Path, bytes: &'static [u8]) {
        let path = path.to_owned();
        let writer = std::thread::spawn(move || {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(bytes, 0).unwrap();
        });
        while !writer.is_finished() {
            known.give_way();
            std::thread::yield_now();
        }
        writer.join().unwrap();
    }

    #[test]
    fn a_write_in_place_is_seen_whatever_the_timestamps_say() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vmm");
        fs::write(&path, "golden").unwrap();
        let times = fs::metadata(&path).unwrap();
        let known = KnownExecutable::default();
        for _ in 0..2 {
            assert_eq!(known.digest(&path).unwrap(), Digest::of(b"golden"));
        }
        write(&known, &path, b"forged");
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        file.set_modified(times.modified().unwrap()).unwrap();
        // No lease is granted while a writer has the file open, so the digest is computed each time.
        for _ in 0..2 {
            assert_eq!(known.digest(&path).unwrap(), Digest::of(b"forged"));
        }
        file.write_all_at(b"golden", 0).ok();
        drop(file);
        fs::write(&path, "golden").unwrap();
        assert_eq!(known.digest(&path).unwrap(), Digest::of(b"golden"));
    }

    #[test]
    fn a_new_file_at_the_same_path_is_digested_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vmm");
        fs::write(&path, "golden").unwrap();
        let known = KnownExecutable::default();
        assert_eq!(known.digest(&path).unwrap(), Digest::of(b"golden"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "forged").unwrap();
        assert_eq!(known.digest(&path).unwrap(), Digest::of(b"forged"));
    }

    #[test]
    fn only_a_file_of_root_needs_no_lease() {
        let ours = tempfile::tempfile().unwrap();
        assert!(!only_root_writes(&ours));
        // The owner of `/bin/sh`, and whether this process may write to it, depend on the host.
        let shell = File::open("/bin/sh").unwrap();
        let metadata = shell.metadata().unwrap();
        let writable = accessat(CWD, "/bin/sh", Access::WRITE_OK, AtFlags::EACCESS).is_ok();
        let expected = metadata.uid() == 0 && metadata.mode() & 0o022 == 0 && !writable;
        assert_eq!(only_root_writes(&shell), expected);
    }
}
