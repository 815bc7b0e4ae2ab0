//! The digest of the executable that a VMM's process runs.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use super::{Error, ExecutableFacts};
use crate::causes::Causes;
use crate::offload::blocking;
use crate::overlay::{
    AccessPolicy, Digest, FileIdentity, Lease, open_regular, own_path, reopen, sha256, sha256_of,
};
use crate::vmm::Process;

impl ExecutableFacts {
    /// Digests the executable that `process` runs: the file that was started, whatever has its name by now.
    ///
    /// # Errors
    ///
    /// [`Error::Digest`] when it can't be read, and [`Error::Host`] when the process has ended or can't be looked at.
    pub async fn of_process(process: &Process) -> Result<ExecutableFacts, Error> {
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

/// The executable of a process, by the process.
pub(super) fn path(process: &Process) -> PathBuf {
    format!("/proc/{}/exe", process.pid()).into()
}

/// A process that is still there had its id all the time, so [`path`] led to its executable.
pub(super) fn check_alive(process: &Process) -> Result<(), Error> {
    let alive = process.holds_listener().map_err(|source| Error::Host {
        what: "the VMM's executable",
        path: path(process),
        source: std::io::Error::other(source),
    });
    alive.map(drop)
}

/// The digest of the executable that VMMs run, for as long as something vouches for it.
#[derive(Debug, Default)]
pub(super) struct KnownExecutable(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    identity: FileIdentity,
    digest: Digest,
    guard: Guard,
}

/// What keeps a file's bytes from changing unnoticed. It keeps the file open, so its inode number is no other file's.
#[derive(Debug)]
enum Guard {
    /// No process has opened it for writing since the lease was taken.
    Lease(Lease<File>),
    /// It is root's, and no other user may write to it. Root is trusted.
    Owner(File),
}

impl Guard {
    /// None for a file to which this user's processes, or others than root's, may write unseen.
    fn take(file: &File) -> Option<Guard> {
        match reopen(file).and_then(Lease::take) {
            Ok(lease) => Some(Guard::Lease(lease)),
            Err(error) => {
                tracing::debug!(error = %Causes(&error), "no lease on the VMM's executable");
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

/// Whether the file belongs to root, and neither this process nor another user's may write to it.
fn only_root_writes(file: &File) -> bool {
    const BY_OTHERS: u32 = 0o022;
    let Ok(metadata) = file.metadata() else {
        return false;
    };
    let path = own_path(file);
    // With the capabilities of this process, which the mode says nothing of.
    let ours = accessat(CWD, &path, Access::WRITE_OK, AtFlags::EACCESS);
    metadata.uid() == 0
        && metadata.mode() & BY_OTHERS == 0
        && matches!(ours, Err(Errno::ACCESS | Errno::ROFS))
}

impl KnownExecutable {
    /// The SHA-256 of the file that `exe` leads to. Computed, unless it is the same file as the last time and something
    /// has vouched for it since. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Digest`] when it can't be read.
    pub(super) fn digest(&self, exe: &Path) -> Result<Digest, Error> {
        let (file, status) = open_regular(exe).map_err(Error::Digest)?;
        if let Some(known) = &*self.lock()
            && known.identity == status.identity
            && known.guard.stands()
        {
            return Ok(known.digest);
        }
        // Before the digest: a write from here on is seen.
        let guard = Guard::take(&file);
        let proof = sha256_of(&file, exe, AccessPolicy::PreferMapped).map_err(Error::Digest)?;
        *self.lock() = guard.filter(Guard::stands).map(|guard| Known {
            identity: proof.identity,
            digest: proof.digest,
            guard,
        });
        Ok(proof.digest)
    }

    /// Gives the lease back if some process waits for that.
    pub(super) fn give_way(&self) {
        let mut known = self.lock();
        if known.as_ref().is_some_and(|known| !known.guard.stands()) {
            *known = None;
        }
    }

    /// No thread that holds this lock can leave it half-changed.
    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Writes to the file in place, once the lease is given back.
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
        // With a writer there is no lease, so each time counts.
        for _ in 0..2 {
            assert_eq!(known.digest(&path).unwrap(), Digest::of(b"forged"));
        }
        file.write_all_at(b"golden", 0).ok();
        drop(file);
        fs::write(&path, "golden").unwrap();
        assert_eq!(known.digest(&path).unwrap(), Digest::of(b"golden"));
    }

    #[test]
    fn another_file_of_the_same_name_is_another_one() {
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
        // Whose it is, and whether this process may write to it, depends on the host.
        let shell = File::open("/bin/sh").unwrap();
        let metadata = shell.metadata().unwrap();
        let writable = accessat(CWD, "/bin/sh", Access::WRITE_OK, AtFlags::EACCESS).is_ok();
        let expected = metadata.uid() == 0 && metadata.mode() & 0o022 == 0 && !writable;
        assert_eq!(only_root_writes(&shell), expected);
    }
}
