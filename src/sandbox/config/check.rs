//! [`SandboxConfig::check`]: refuses values that can't work, before anything is started.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{ConfigError, GoldenOrigin, SandboxConfig, SandboxOrigin, ScaffoldOrigin};
use crate::machine::DiskFormat;
use crate::sandbox::MAX_SPARES;

/// The largest number of MiB whose number of bytes fits into a `u64`.
const MAX_MIB: u64 = u64::MAX >> 20;

/// The least memory of a guest. With less, the VMM ends at the boot instead of answering with an error.
const MIN_MEMORY_MIB: u64 = 16;

type Check = Result<(), ConfigError>;

impl SandboxConfig {
    /// Checks the values of all fields. Opens no file, so a path that doesn't exist passes.
    ///
    /// [`ChvSandbox::new`](crate::sandbox::ChvSandbox::new) and [`from_toml`](Self::from_toml) make this check too.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] for the first field whose value is not allowed.
    pub fn check(&self) -> Check {
        match &self.origin {
            SandboxOrigin::Golden(golden) => golden.check()?,
            SandboxOrigin::Scaffold(scaffold) => scaffold.check()?,
        }
        check_path("vmm", &self.vmm)?;
        if let Some(reason) = self.vmm_env.first_illegal() {
            return Err(ConfigError::invalid("vmm_env", reason));
        }
        if let Some(layer) = self.confinement.contradiction() {
            let reason = format!("requires {layer} and leaves it out");
            return Err(ConfigError::invalid("confinement", reason));
        }
        for program in &self.vmm_programs {
            check_path("vmm_programs", program)?;
        }
        if let Some(parent) = &self.cgroup.parent {
            check_path("cgroup.parent", parent)?;
        }
        if let Some(run_root) = &self.run_root {
            check_path("run_root", run_root)?;
        }
        match self.limits.first_illegal() {
            Some((field, reason)) => Err(ConfigError::invalid(field, reason)),
            None => Ok(()),
        }
    }
}

impl GoldenOrigin {
    fn check(&self) -> Check {
        check_path("golden.directory", &self.directory)?;
        if let Some(key) = &self.public_key {
            check_path("golden.public_key", key)?;
        }
        if let Some(directory) = &self.evidence_dir {
            check_path("golden.evidence_dir", directory)?;
        }
        if let Some(mib) = self.memory_limit_mib {
            check_mib("golden.memory_limit_mib", mib)?;
        }
        match self.spares {
            Some(spares) if spares > MAX_SPARES => {
                let reason = format!("is {spares}, more than {MAX_SPARES}");
                Err(ConfigError::invalid("golden.spares", reason))
            }
            _ => Ok(()),
        }
    }
}

impl ScaffoldOrigin {
    fn check(&self) -> Check {
        check_path("scaffold.kernel", &self.kernel)?;
        check_path("scaffold.root_disk", &self.root_disk)?;
        if let Some(initramfs) = &self.initramfs {
            check_path("scaffold.initramfs", initramfs)?;
        }
        match &self.overlay {
            Some(overlay) => check_path("scaffold.overlay", overlay)?,
            None if self.overlay_format != DiskFormat::Raw => {
                let reason = "is set, and scaffold.overlay is not";
                return Err(ConfigError::invalid("scaffold.overlay_format", reason));
            }
            None => {}
        }
        check_mib("scaffold.memory_mib", self.memory_mib)?;
        let (field, reason) = match *self {
            _ if self.cmdline.contains('\0') => {
                ("scaffold.cmdline", "has a NUL character in it".to_owned())
            }
            ScaffoldOrigin { vcpus: 0, .. } => ("scaffold.vcpus", "is 0".to_owned()),
            ScaffoldOrigin { memory_mib, .. } if memory_mib < MIN_MEMORY_MIB => (
                "scaffold.memory_mib",
                format!("is {memory_mib}, less than {MIN_MEMORY_MIB}"),
            ),
            ScaffoldOrigin {
                cid: cid @ 0..3, ..
            } => ("scaffold.cid", format!("is {cid}; 0 to 2 are reserved")),
            ScaffoldOrigin { cid: u32::MAX, .. } => (
                "scaffold.cid",
                "is 4294967295, which means any CID and is reserved".to_owned(),
            ),
            _ => return Ok(()),
        };
        Err(ConfigError::invalid(field, reason))
    }
}

fn check_path(field: &'static str, path: &Path) -> Check {
    let bytes = path.as_os_str().as_bytes();
    match bytes {
        [] => Err(ConfigError::invalid(field, "is missing or empty")),
        _ if bytes.contains(&0) => Err(ConfigError::invalid(field, "has a NUL character in it")),
        _ => Ok(()),
    }
}

fn check_mib(field: &'static str, mib: u64) -> Check {
    match mib {
        ..=MAX_MIB => Ok(()),
        _ => Err(ConfigError::invalid(
            field,
            "does not fit into a number of bytes",
        )),
    }
}
