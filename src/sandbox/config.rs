//! The configuration of a sandbox, as a struct or as a TOML file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::{MAX_SPARES, OlderGuest, Strategy, ToolsPerReset};
use crate::client::Deadlines;
use crate::golden::{CopyReason, LoadOptions, LoadedMemory, MemoryMode};
use crate::machine::{Disk, DiskFormat, DiskRole, Limits, VerificationLevel, VmShape, VmmSource};
use crate::overlay::Digest;
use crate::vmm::{CgroupConfig, Confinement, VmmConfig};

/// A configuration has a few hundred bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// How a sandbox is made. Every field has a default but the one that says what it is reset to:
/// [`golden`](Self::golden), or, asked for by name, [`scaffold`](Self::scaffold).
///
/// In a TOML file the fields have the same names; paths are taken as they stand. Further fields are refused.
///
/// ```
/// let config = chv_sandbox::sandbox::SandboxConfig::from_toml(r#"
///     vmm = "/usr/bin/cloud-hypervisor"
///     golden = "/var/lib/agent/golden"
/// "#)?;
/// # Ok::<_, chv_sandbox::sandbox::ConfigError>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// The VMM's executable; a bare name is looked up in `PATH`. `cloud-hypervisor` unless set.
    pub vmm: PathBuf,
    /// Extra environment for the VMM's process. Its values are never logged.
    pub vmm_env: VmmEnv,
    /// Which layers of a boundary each VMM gets: `"best_effort"` (the default), `"off"`, or a table with `require` or
    /// `without`, lists of layers.
    pub confinement: Confinement,
    /// Files and folders that the VMM may run programs and libraries from, beside its executable and the system's
    /// libraries.
    pub vmm_programs: Vec<PathBuf>,
    /// Where the VMM's control group is made, and its limits.
    pub cgroup: CgroupConfig,
    /// Keeps the names of the VMM's sockets, for debugging. False unless set.
    pub keep_socket_names: bool,
    /// Where the private directory of each VMM is made. Unless set, in the user's runtime directory.
    pub run_root: Option<PathBuf>,
    /// The golden snapshot to which every reset returns. With one, boot restores it, and nothing of a VM's
    /// shape needs to be given.
    pub golden: Option<PathBuf>,
    /// Runs without baselines: the sandbox boots cold, a reset boots it again from the disks as they were
    /// given, and **nothing is verified**. Needs `kernel` and `root_disk`.
    pub scaffold: bool,
    /// Which VMM serves after a reset. Unless set, another one where this library starts VMMs, and the one that serves where
    /// another program does and in scaffold mode: nothing else is possible there.
    pub strategy: Option<Strategy>,
    /// How many spares wait, restored and paused, for the resets to come: 0 to [`MAX_SPARES`]. A spare holds what it wrote of
    /// its memory where that is mapped, all of it where it is copied. 1 unless set, or none where the memory is copied
    /// because there is too little of it. With none, an empty VMM that was started ahead is restored while the caller waits.
    /// Of no use to [`Strategy::InPlace`].
    pub spares: Option<u32>,
    /// How many tools the sandbox runs before it has to be reset: `one` unless set, or `many`.
    pub tools_per_reset: ToolsPerReset,
    /// How guests get the golden snapshot's memory: `mapped` unless set, or `copied`.
    pub memory: MemoryMode,
    /// The most memory that this process may take for the golden snapshot's, in MiB. Where that is less than the guest has,
    /// it is copied at each restore. Unless set, as much as the machine and its control groups leave.
    pub golden_memory_limit_mib: Option<u64>,
    /// How much of a reset's proof is computed anew each time. `fast` unless set.
    pub verification: VerificationLevel,
    /// The digest of the golden snapshot's manifest (`sha256sum manifest.json`, printed by `golden mint` and `golden
    /// verify`). With it, any other golden snapshot is refused.
    pub golden_digest: Option<Digest>,
    /// The Ed25519 key that has to have signed the golden snapshot's manifest: PEM, or its 32 bytes. With it, a golden
    /// snapshot that isn't signed, or by another key, is refused. Without it no signature is looked at.
    pub public_key: Option<PathBuf>,
    /// Restores on another processor than the golden snapshot was made on, too. Its guest may use what this one lacks.
    /// False unless set.
    pub any_cpu: bool,
    /// Whether a guest passes that is older than what a reset asks of it: nonce, randomness, clock. `accept` unless set.
    pub older_guest: OlderGuest,
    /// Where the evidence of a divergence is kept. Unless set, `evidence` beside the golden snapshot.
    pub evidence_dir: Option<PathBuf>,
    /// The kernel, for a cold boot.
    pub kernel: Option<PathBuf>,
    /// The initramfs, for a kernel that needs one.
    pub initramfs: Option<PathBuf>,
    /// The kernel's command line. For a distribution's root unless set.
    pub cmdline: String,
    /// An image of the root disk.
    pub root_disk: Option<PathBuf>,
    /// Whether the guest may not write to the root disk. True unless set.
    pub root_readonly: bool,
    /// The format of the root disk's image, `raw` or `qcow2`. Raw unless set.
    pub root_format: DiskFormat,
    /// An image of a second, writable disk. Where there is none, the root disk is the one that is hashed.
    /// The guest gets a private copy of it, so any number of sandboxes may be given the same one.
    pub overlay_path: Option<PathBuf>,
    /// The format of the overlay's image, `raw` or `qcow2`. Raw unless set. A qcow2 overlay is of version 2 and names
    /// its backing file, if it has one, by an absolute path, with its format
    /// (`qemu-img create -f qcow2 -o compat=0.10 -b /path/to/base.img -F raw overlay.qcow2`);
    /// [`overlay::qcow2`](crate::overlay::qcow2) says why.
    pub overlay_format: DiskFormat,
    /// vCPUs. 2 unless set.
    pub vcpus: u32,
    /// Memory in MiB. 1024 unless set.
    pub memory_mib: u64,
    /// The guest's vsock CID, 3 or more. 3 unless set.
    pub cid: u32,
    /// The vsock port of the guest's dispatcher. 1024 unless set.
    pub port: u32,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// Extra environment of a VMM's process, by name. Its values may be secrets, so `Debug` shows the names alone.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct VmmEnv(pub BTreeMap<String, String>);

impl fmt::Debug for VmmEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How long to wait for what, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// The whole boot, to the open channel. 30,000 unless set.
    pub boot_ms: u64,
    /// One attempt of the vsock handshake. 5,000 unless set.
    pub handshake_ms: u64,
    /// What a guest may take to answer after a reset before it counts as silent. 5,000 unless set.
    pub settle_ms: u64,
    /// One query to the guest. 1,000 unless set; emulated guests need more.
    pub query_ms: u64,
    /// One call to the VMM that changes its VM: to delete, pause or resume it. After that the VMM is given up: it is killed,
    /// and another one serves. 10,000 unless set.
    pub vmm_ms: u64,
    /// The VMM's restore of a snapshot, in which it may read all of the guest's memory. 300,000 unless set.
    pub restore_ms: u64,
    /// What a tool may take beyond its deadline for the guest's own answer. 2,000 unless set.
    pub grace_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            boot_ms: 30_000,
            handshake_ms: 5_000,
            settle_ms: 5_000,
            query_ms: 1_000,
            vmm_ms: 10_000,
            restore_ms: 300_000,
            grace_ms: 2_000,
        }
    }
}

impl Default for SandboxConfig {
    fn default() -> Self {
        SandboxConfig {
            vmm: "cloud-hypervisor".into(),
            vmm_env: VmmEnv::default(),
            confinement: Confinement::default(),
            vmm_programs: Vec::new(),
            cgroup: CgroupConfig::default(),
            keep_socket_names: false,
            run_root: None,
            golden: None,
            scaffold: false,
            strategy: None,
            spares: None,
            tools_per_reset: ToolsPerReset::default(),
            memory: MemoryMode::default(),
            golden_memory_limit_mib: None,
            verification: VerificationLevel::default(),
            golden_digest: None,
            public_key: None,
            any_cpu: false,
            older_guest: OlderGuest::default(),
            evidence_dir: None,
            kernel: None,
            initramfs: None,
            cmdline: "console=hvc0 root=/dev/vda rootfstype=ext4 ro".to_owned(),
            root_disk: None,
            root_readonly: true,
            root_format: DiskFormat::Raw,
            overlay_path: None,
            overlay_format: DiskFormat::Raw,
            vcpus: 2,
            memory_mib: 1024,
            cid: 3,
            port: 1024,
            timeouts: Timeouts::default(),
        }
    }
}

/// A configuration can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It isn't TOML of this shape.
    #[error("the configuration is not understood")]
    Malformed(#[source] Box<toml::de::Error>),
    /// A value can't be.
    #[error("the configuration's {field} {reason}")]
    Invalid {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl ConfigError {
    fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        ConfigError::Invalid { field, reason }
    }
}

impl SandboxConfig {
    /// A sandbox that is reset to the golden snapshot in `directory`.
    pub fn with_golden(directory: impl Into<PathBuf>) -> Self {
        SandboxConfig {
            golden: Some(directory.into()),
            ..SandboxConfig::default()
        }
    }

    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Malformed`] with line and column, [`ConfigError::Invalid`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: SandboxConfig =
            toml::from_str(text).map_err(|error| ConfigError::Malformed(Box::new(error)))?;
        config.check()?;
        Ok(config)
    }

    /// Reads a configuration from a file of at most 64 KiB.
    ///
    /// # Errors
    ///
    /// Those of [`from_toml`](Self::from_toml), and [`ConfigError::Read`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
        if read.map_err(failed)? as u64 > MAX_BYTES {
            let reason = format!("larger than {MAX_BYTES} bytes");
            return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, reason)));
        }
        Self::from_toml(&text)
    }

    /// Checks what can be checked without touching anything.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`], for the first field that can't be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let invalid = ConfigError::invalid;
        match (&self.golden, self.scaffold) {
            (Some(_), true) => Err(invalid("scaffold", "and golden exclude each other")),
            (None, false) => Err(invalid(
                "golden",
                "is missing: give the golden snapshot, or scaffold = true to run without verification",
            )),
            (None, true) if self.public_key.is_some() => Err(invalid(
                "public_key",
                "needs a golden snapshot: scaffold mode verifies nothing",
            )),
            (None, true) if self.golden_digest.is_some() => Err(invalid(
                "golden_digest",
                "needs a golden snapshot: scaffold mode verifies nothing",
            )),
            (None, true) if self.kernel.is_none() => Err(invalid("kernel", "is missing")),
            (None, true) if self.root_disk.is_none() => Err(invalid("root_disk", "is missing")),
            (None, true) if self.strategy == Some(Strategy::Fresh) => Err(invalid(
                "strategy",
                "needs a golden snapshot: scaffold mode boots again in place",
            )),
            _ => self.check_numbers(),
        }
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        if let Some(layer) = self.confinement.contradiction() {
            let reason = format!("requires {layer} and leaves it out");
            return Err(ConfigError::invalid("confinement", reason));
        }
        let (field, reason) = match *self {
            SandboxConfig {
                spares: Some(spares),
                ..
            } if spares > MAX_SPARES => ("spares", format!("is {spares}, more than {MAX_SPARES}")),
            SandboxConfig {
                cid: cid @ 0..3, ..
            } => ("cid", format!("is {cid}; 0 to 2 are reserved")),
            SandboxConfig { cid: u32::MAX, .. } => {
                ("cid", "means any CID, and is reserved".to_owned())
            }
            SandboxConfig { vcpus: 0, .. } => ("vcpus", "is 0".to_owned()),
            // Memory that doesn't hold a kernel makes the VMM end, not fail.
            SandboxConfig {
                memory_mib: mib @ 0..16,
                ..
            } => ("memory_mib", format!("is {mib}, less than 16")),
            SandboxConfig { memory_mib, .. } if memory_mib > u64::MAX >> 20 => (
                "memory_mib",
                "does not fit into a number of bytes".to_owned(),
            ),
            _ => return Ok(()),
        };
        Err(ConfigError::invalid(field, reason))
    }

    /// The strategy on VMMs from `source`.
    pub(super) fn strategy_on(&self, source: &VmmSource) -> Strategy {
        self.strategy.unwrap_or(match source {
            VmmSource::Spawn(_) if !self.scaffold => Strategy::Fresh,
            _ => Strategy::InPlace,
        })
    }

    /// How many spares there are to be of a golden snapshot that was loaded like this.
    pub(super) fn spares_of(&self, memory: &LoadedMemory) -> u32 {
        let is_short = matches!(memory.copied_because, Some(CopyReason::ShortOfMemory(_)));
        self.spares.unwrap_or(u32::from(!is_short))
    }

    /// The VM of a cold boot, if the configuration has one.
    pub fn shape(&self) -> Option<VmShape> {
        Some(VmShape {
            kernel: self.kernel.clone()?,
            initramfs: self.initramfs.clone(),
            cmdline: self.cmdline.clone(),
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            cid: self.cid,
        })
    }

    /// The disks of a cold boot, in the VM's order; none where no root disk is given.
    pub fn disks(&self) -> Vec<Disk> {
        let root = self.root_disk.iter().map(|origin| Disk {
            role: DiskRole::Root,
            origin: origin.clone(),
            readonly: self.root_readonly,
            format: self.root_format,
        });
        let overlay = self.overlay_path.iter().map(|origin| Disk {
            role: DiskRole::Overlay,
            origin: origin.clone(),
            readonly: false,
            format: self.overlay_format,
        });
        root.chain(overlay).collect()
    }

    /// The VMM's process.
    pub fn vmm_config(&self) -> VmmConfig {
        let mut config = VmmConfig {
            binary: self.vmm.clone(),
            confinement: self.confinement.clone(),
            programs: self.vmm_programs.clone(),
            cgroup: self.cgroup.clone(),
            keep_socket_names: self.keep_socket_names,
            ..VmmConfig::default()
        };
        let env = self.vmm_env.0.iter();
        config.env = env
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        if let Some(run_root) = &self.run_root {
            config.run_root = run_root.clone();
        }
        config
    }

    /// How the golden snapshot is loaded for VMMs that this process starts.
    pub fn load_options(&self) -> LoadOptions {
        let limit = self.golden_memory_limit_mib;
        LoadOptions {
            memory: self.memory,
            memory_limit: limit.map(|mib| mib.saturating_mul(1 << 20)),
            ..LoadOptions::default()
        }
    }

    /// How long a machine waits for its guest and for its VMM.
    pub fn limits(&self) -> Limits {
        let Timeouts {
            boot_ms,
            handshake_ms,
            settle_ms,
            query_ms,
            vmm_ms,
            restore_ms,
            grace_ms: _,
        } = self.timeouts;
        Limits {
            boot: Duration::from_millis(boot_ms),
            handshake: Duration::from_millis(handshake_ms),
            settle: Duration::from_millis(settle_ms),
            query: Duration::from_millis(query_ms),
            vmm: Deadlines {
                lifecycle: Duration::from_millis(vmm_ms),
                transfer: Duration::from_millis(restore_ms),
                ..Deadlines::default()
            },
        }
    }
}

#[cfg(test)]
mod tests;
