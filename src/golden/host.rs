//! The VMM that a golden snapshot is restored by: it must be the one that made it.

use super::{Error, Golden, Part};
use crate::overlay::Digest;

impl Golden {
    /// Compares what is about to restore this snapshot with what made it: the VMM's `release`, its executable's
    /// digest, and this machine's processor unless `any_cpu`. Reads `/proc/cpuinfo` and nothing else.
    ///
    /// `executable` is `None` for a VMM that another program runs, whose process can't be looked at; then, or where
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
