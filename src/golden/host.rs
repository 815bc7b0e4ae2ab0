//! The VMM that a golden snapshot is restored by: it must be the one that made it.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Error, ExecutableFacts, Golden, Part};
use crate::machine::blocking;
use crate::overlay::{self, AccessPolicy, Digest, Stamp};
use crate::vmm::Process;

impl ExecutableFacts {
    /// Digests the executable that `process` runs: the file that was started, whatever has its name by now.
    ///
    /// # Errors
    ///
    /// [`Error::Digest`] when it can't be read, for one because the process has ended.
    pub async fn of_process(process: &Process) -> Result<ExecutableFacts, Error> {
        let path = PathBuf::from(format!("/proc/{}/exe", process.pid()));
        let hashed = {
            let path = path.clone();
            blocking(move || overlay::sha256(&path, AccessPolicy::PreferMapped)).await
        };
        let hashed = hashed.map_err(Error::Digest)?;
        // A process that is still there had this id all the time.
        process.holds_listener().map_err(|source| Error::Host {
            what: "the VMM's executable",
            path,
            source: std::io::Error::other(source),
        })?;
        Ok(ExecutableFacts {
            length: hashed.length,
            sha256: hashed.digest,
        })
    }
}

/// The digest of the executable that VMMs run, computed anew only for another file than the last one.
///
/// It is the same file for as long as its device, inode, size and timestamps are the same. While a VMM runs it the kernel
/// lets nobody open it for writing.
#[derive(Debug, Default)]
pub struct KnownExecutable(Mutex<Option<(Stamp, Digest)>>);

impl KnownExecutable {
    /// The digest of the executable that `process` runs: the file that was started, whatever has its name by now.
    ///
    /// # Errors
    ///
    /// Those of [`ExecutableFacts::of_process`], and [`Error::Host`] when the file can't be looked at.
    pub async fn of_process(&self, process: &Process) -> Result<Digest, Error> {
        let path = PathBuf::from(format!("/proc/{}/exe", process.pid()));
        // Before the digest: what changes from here on shows the next time.
        let metadata = fs::metadata(&path).map_err(|source| Error::Host {
            what: "the VMM's executable",
            path,
            source,
        })?;
        let stamp = Stamp::from(&metadata);
        let known = *self.lock();
        if let Some((known, digest)) = known
            && known == stamp
        {
            return Ok(digest);
        }
        let digest = ExecutableFacts::of_process(process).await?.sha256;
        *self.lock() = Some((stamp, digest));
        Ok(digest)
    }

    /// Nothing that holds this lock can leave it half-changed.
    fn lock(&self) -> MutexGuard<'_, Option<(Stamp, Digest)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Golden {
    /// Compares what is about to restore this snapshot with what made it: the VMM's `release`, its executable's
    /// digest, and this machine's processor unless `any_cpu`. Reads `/proc/cpuinfo` and nothing else.
    ///
    /// `executable` is `None` for a VMM that somebody else runs, whose process can't be looked at; then, or where
    /// the manifest has none, it isn't compared.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] with the first field that differs: `release`, `vmm.executable.sha256`, `cpu.vendor`,
    /// `cpu.family`, `cpu.model`, `cpu.flags`. [`Error::Host`] when the processor can't be found out.
    pub fn check_host(
        &self,
        release: &str,
        executable: Option<&Digest>,
        any_cpu: bool,
    ) -> Result<(), Error> {
        let manifest = self.manifest();
        if manifest.release != release {
            return Err(Error::mismatch(
                Part::Host,
                "release",
                &manifest.release,
                release,
            ));
        }
        if let (Some(minted_by), Some(found)) = (&manifest.vmm.executable, executable)
            && minted_by.sha256 != *found
        {
            return Err(Error::mismatch(
                Part::Host,
                "vmm.executable.sha256",
                minted_by.sha256,
                found,
            ));
        }
        match any_cpu {
            true => Ok(()),
            false => manifest.cpu.check(&super::CpuFacts::of_this_host()?),
        }
    }
}
