//! [`Golden::check_host`] compares the VMM and the host of a restore with those that made the golden snapshot.

use super::{Error, Golden, Part};
use crate::overlay::Digest;

impl Golden {
    /// Compares the VMM and host that are about to restore this snapshot with those that made it: the VMM's `release`,
    /// the digest of its executable, and the host's processor unless `any_cpu` is set. Reads `/proc/cpuinfo` and no
    /// other file.
    ///
    /// `executable` is `None` for a VMM that another program runs, since its process can't be examined. The executable
    /// is compared only if both `executable` and the manifest have a digest.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] with the first field that differs: `release`, `vmm.executable.sha256`, `cpu.vendor`,
    /// `cpu.family`, `cpu.model` or `cpu.flags`. [`Error::Host`] if `/proc/cpuinfo` can't be read or lacks a field.
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
