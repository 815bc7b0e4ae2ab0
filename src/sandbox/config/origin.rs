//! [`SandboxOrigin`]: what a sandbox boots from and is reset to.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};

use crate::golden::{CopyReason, LoadOptions, LoadedMemory, MemoryMode};
use crate::guest::protocol::DEFAULT_PORT;
use crate::machine::{Disk, DiskFormat, DiskRole, VerificationLevel, VmShape, VmmSource};
use crate::overlay::Digest;
use crate::sandbox::{OlderGuest, Strategy};

/// What a sandbox boots from and is reset to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SandboxOrigin {
    /// A golden snapshot. Each boot and each reset restores it and is verified against its baselines.
    Golden(GoldenOrigin),
    /// Scaffold mode: a kernel and disks. Each boot and each reset boots the kernel with the disks as they were given,
    /// and **nothing is verified**.
    Scaffold(ScaffoldOrigin),
}

impl From<GoldenOrigin> for SandboxOrigin {
    fn from(origin: GoldenOrigin) -> Self {
        SandboxOrigin::Golden(origin)
    }
}

impl From<ScaffoldOrigin> for SandboxOrigin {
    fn from(origin: ScaffoldOrigin) -> Self {
        SandboxOrigin::Scaffold(origin)
    }
}

/// A golden snapshot, and how a sandbox is reset to it: the table `[golden]` of a TOML file. `golden = "/dir"` is short
/// for a table that has `directory` alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
#[non_exhaustive]
pub struct GoldenOrigin {
    /// The golden snapshot's directory.
    pub directory: PathBuf,
    /// The SHA-256 of the golden snapshot's manifest (`sha256sum manifest.json`; `golden mint` and `golden verify`
    /// print it). If it is set, any other golden snapshot is refused. Default: none, any golden snapshot is accepted.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// A file with an Ed25519 public key, as PEM or as its 32 bytes. If it is set, the golden snapshot's manifest has
    /// to be signed with that key; an unsigned golden snapshot is refused. Default: none, no signature is checked.
    #[serde(default)]
    pub public_key: Option<PathBuf>,
    /// How guests get the golden snapshot's memory: `mapped` or `copied`. Default: `mapped`.
    #[serde(default)]
    pub memory: MemoryMode,
    /// The most memory that this process may take to hold the golden snapshot's memory, in MiB. If the guest has more,
    /// the VMM copies its memory at each restore. Default: as much as the machine and its control groups leave.
    #[serde(default)]
    pub memory_limit_mib: Option<u64>,
    /// How much of a reset's proof is computed anew each time: `fast` or `full`. Default: `fast`.
    #[serde(default)]
    pub verification: VerificationLevel,
    /// Allows a restore on another processor than the one that the golden snapshot was made on. The guest may then use
    /// features that this processor lacks. Default: false.
    #[serde(default)]
    pub any_cpu: bool,
    /// Whether a reset passes if the guest lacks an extension that resets use (nonce, reseeding, clock): `accept` or
    /// `refuse`. Default: `accept`.
    #[serde(default)]
    pub older_guest: OlderGuest,
    /// The directory in which the evidence of an unverified reset is kept. Default: `evidence` beside the golden
    /// snapshot's directory.
    #[serde(default)]
    pub evidence_dir: Option<PathBuf>,
    /// Which VMM serves after a reset: `fresh` or `in_place`. Default: `fresh` if this library starts the VMMs;
    /// `in_place` if another program does, where it is the only possible strategy.
    #[serde(default)]
    pub strategy: Option<Strategy>,
    /// How many spares, VMMs with a restored and paused VM, wait for the next resets: 0 to
    /// [`MAX_SPARES`](crate::sandbox::MAX_SPARES). A spare takes the memory that its guest has written if the memory is
    /// mapped, and the guest's whole memory if it is copied. With 0 spares, one empty VMM is started ahead and restored
    /// while the caller of the reset waits. Not used by [`Strategy::InPlace`]. Default: 1, or 0 if the memory is copied
    /// because the machine has too little of it.
    #[serde(default)]
    pub spares: Option<u32>,
}

impl GoldenOrigin {
    /// The golden snapshot in `directory`, with the default of every other setting.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        GoldenOrigin {
            directory: directory.into(),
            digest: None,
            public_key: None,
            memory: MemoryMode::default(),
            memory_limit_mib: None,
            verification: VerificationLevel::default(),
            any_cpu: false,
            older_guest: OlderGuest::default(),
            evidence_dir: None,
            strategy: None,
            spares: None,
        }
    }

    setters! {
        digest: Digest => Some(digest);
        public_key: impl Into<PathBuf> => Some(public_key.into());
        memory: MemoryMode => memory;
        memory_limit_mib: u64 => Some(memory_limit_mib);
        verification: VerificationLevel => verification;
        any_cpu: bool => any_cpu;
        older_guest: OlderGuest => older_guest;
        evidence_dir: impl Into<PathBuf> => Some(evidence_dir.into());
        strategy: Strategy => Some(strategy);
        spares: u32 => Some(spares);
    }

    /// The options to [load](crate::golden::Golden::load) the golden snapshot for VMMs that this process starts.
    pub(crate) fn load_options(&self) -> LoadOptions {
        let limit = self.memory_limit_mib;
        LoadOptions {
            memory: self.memory,
            memory_limit: limit.map(|mib| mib.saturating_mul(1 << 20)),
            ..LoadOptions::default()
        }
    }

    /// The strategy of resets on VMMs from `source`.
    pub(in crate::sandbox) fn strategy_on(&self, source: &VmmSource) -> Strategy {
        self.strategy.unwrap_or(match source {
            VmmSource::Spawn(_) => Strategy::Fresh,
            VmmSource::Attach { .. } => Strategy::InPlace,
        })
    }

    /// How many spares to keep, given how the golden snapshot's memory was loaded.
    pub(in crate::sandbox) fn spares_of(&self, memory: &LoadedMemory) -> u32 {
        let is_short = matches!(memory.copied_because, Some(CopyReason::ShortOfMemory(_)));
        self.spares.unwrap_or(u32::from(!is_short))
    }

    /// The directory for evidence. `None` if none is configured and the golden snapshot's directory has no parent.
    pub(in crate::sandbox) fn evidence_directory(&self) -> Option<PathBuf> {
        let beside = || Some(self.directory.parent()?.join("evidence"));
        self.evidence_dir.clone().or_else(beside)
    }
}

/// Reads a table, or a string with the directory alone.
impl<'de> Deserialize<'de> for GoldenOrigin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TableOrDirectory;

        impl<'de> de::Visitor<'de> for TableOrDirectory {
            type Value = GoldenOrigin;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the golden snapshot's directory, or a table with `directory`")
            }

            fn visit_str<E: de::Error>(self, directory: &str) -> Result<GoldenOrigin, E> {
                Ok(GoldenOrigin::new(directory))
            }

            fn visit_map<M: de::MapAccess<'de>>(self, table: M) -> Result<GoldenOrigin, M::Error> {
                // `remote = "Self"` derives an inherent `deserialize`. This calls that one, not the trait's.
                GoldenOrigin::deserialize(MapAccessDeserializer::new(table))
            }
        }

        deserializer.deserialize_any(TableOrDirectory)
    }
}

/// What scaffold mode boots: the table `[scaffold]` of a TOML file.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    default = "ScaffoldOrigin::without_files",
    expecting = "a table with `kernel` and `root_disk`"
)]
#[non_exhaustive]
pub struct ScaffoldOrigin {
    /// The file of the guest's kernel.
    pub kernel: PathBuf,
    /// The file of the initramfs, for a kernel that needs one. Default: none.
    pub initramfs: Option<PathBuf>,
    /// The kernel's command line. Default: `console=hvc0 root=/dev/vda rootfstype=ext4 ro`, for a root disk with a
    /// Linux distribution.
    pub cmdline: String,
    /// The image file of the root disk.
    pub root_disk: PathBuf,
    /// Whether the guest may not write to the root disk. Default: true.
    pub root_readonly: bool,
    /// The format of the root disk's image, `raw` or `qcow2`. Default: `raw`.
    pub root_format: DiskFormat,
    /// The image file of a second, writable disk. The guest gets a private copy of it, so several sandboxes may use the
    /// same file. Default: none.
    pub overlay: Option<PathBuf>,
    /// The format of the overlay's image, `raw` or `qcow2`. A qcow2 overlay has to be of version 2. If it has a backing
    /// file, it has to name that file by an absolute path, with its format (`qemu-img create -f qcow2 -o compat=0.10 -b
    /// /path/to/base.img -F raw overlay.qcow2`); [`overlay::qcow2`](crate::overlay::qcow2) says why. Default: `raw`.
    pub overlay_format: DiskFormat,
    /// The number of vCPUs: 1 or more. Default: 2.
    pub vcpus: u32,
    /// The guest's memory, in MiB: 16 or more. Default: 1024.
    pub memory_mib: u64,
    /// The guest's vsock CID: 3 or more, and less than 4294967295. Default: 3.
    pub cid: u32,
    /// The vsock port of the guest's dispatcher. Default: 1024.
    pub port: u32,
}

impl ScaffoldOrigin {
    /// A kernel and an image of the root disk, with the default of every other setting.
    pub fn new(kernel: impl Into<PathBuf>, root_disk: impl Into<PathBuf>) -> Self {
        ScaffoldOrigin {
            kernel: kernel.into(),
            initramfs: None,
            cmdline: "console=hvc0 root=/dev/vda rootfstype=ext4 ro".to_owned(),
            root_disk: root_disk.into(),
            root_readonly: true,
            root_format: DiskFormat::Raw,
            overlay: None,
            overlay_format: DiskFormat::Raw,
            vcpus: 2,
            memory_mib: 1024,
            cid: 3,
            port: DEFAULT_PORT,
        }
    }

    /// The defaults of a table. Its two required files are empty here; the check of the configuration refuses a path
    /// that is still empty.
    fn without_files() -> Self {
        Self::new("", "")
    }

    setters! {
        initramfs: impl Into<PathBuf> => Some(initramfs.into());
        cmdline: impl Into<String> => cmdline.into();
        root_readonly: bool => root_readonly;
        root_format: DiskFormat => root_format;
        overlay: impl Into<PathBuf> => Some(overlay.into());
        overlay_format: DiskFormat => overlay_format;
        vcpus: u32 => vcpus;
        memory_mib: u64 => memory_mib;
        cid: u32 => cid;
        port: u32 => port;
    }

    /// The VM that scaffold mode boots, without its disks.
    pub(crate) fn shape(&self) -> VmShape {
        VmShape {
            kernel: self.kernel.clone(),
            initramfs: self.initramfs.clone(),
            cmdline: self.cmdline.clone(),
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            cid: self.cid,
        }
    }

    /// The disks of the VM in their order: the root disk, then the overlay if there is one.
    pub(crate) fn disks(&self) -> Vec<Disk> {
        let disk = |role, origin: &Path, readonly, format| Disk {
            role,
            origin: origin.to_owned(),
            readonly,
            format,
        };
        let root = disk(
            DiskRole::Root,
            &self.root_disk,
            self.root_readonly,
            self.root_format,
        );
        let overlay = self.overlay.as_deref();
        let overlay =
            overlay.map(|image| disk(DiskRole::Overlay, image, false, self.overlay_format));
        [root].into_iter().chain(overlay).collect()
    }
}
