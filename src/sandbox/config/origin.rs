//! What a sandbox boots from and returns to.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};

use crate::golden::{CopyReason, LoadOptions, LoadedMemory, MemoryMode};
use crate::guest::protocol::DEFAULT_PORT;
use crate::machine::{Disk, DiskFormat, DiskRole, VerificationLevel, VmShape, VmmSource};
use crate::overlay::Digest;
use crate::sandbox::{OlderGuest, Strategy};

/// What a sandbox boots from, and returns to at every reset.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SandboxOrigin {
    /// A golden snapshot, whose baselines verify each boot and each reset.
    Golden(GoldenOrigin),
    /// Scaffold mode: a kernel and disks. A boot and a reset are cold boots from the disks as they were given, and
    /// **nothing is verified**.
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

/// A golden snapshot, and how a sandbox returns to it: the table `[golden]` of a TOML file. `golden = "/dir"` is short for
/// one with the directory alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
#[non_exhaustive]
pub struct GoldenOrigin {
    /// The golden snapshot's directory.
    pub directory: PathBuf,
    /// The digest of the golden snapshot's manifest (`sha256sum manifest.json`, printed by `golden mint` and `golden
    /// verify`). With it, any other golden snapshot is refused. Default: none is asked for.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// A file with the Ed25519 key that has to have signed the golden snapshot's manifest: PEM, or its 32 bytes. With it, a
    /// golden snapshot that isn't signed, or by another key, is refused. Default: no signature is looked at.
    #[serde(default)]
    pub public_key: Option<PathBuf>,
    /// How guests get the golden snapshot's memory: `mapped` or `copied`. Default: `mapped`.
    #[serde(default)]
    pub memory: MemoryMode,
    /// The most memory that this process may take for the golden snapshot's, in MiB. Where that is less than the guest has,
    /// it is copied at each restore. Default: as much as the machine and its control groups leave.
    #[serde(default)]
    pub memory_limit_mib: Option<u64>,
    /// How much of a reset's proof is computed anew each time: `fast` or `full`. Default: `fast`.
    #[serde(default)]
    pub verification: VerificationLevel,
    /// Restores on another processor than the golden snapshot was made on, too. Its guest may use what this one lacks.
    /// Default: false.
    #[serde(default)]
    pub any_cpu: bool,
    /// Whether a guest passes that is older than what a reset asks of it (nonce, randomness, clock): `accept` or `refuse`.
    /// Default: `accept`.
    #[serde(default)]
    pub older_guest: OlderGuest,
    /// Where the evidence of a divergence is kept. Default: `evidence` beside the golden snapshot.
    #[serde(default)]
    pub evidence_dir: Option<PathBuf>,
    /// Which VMM serves after a reset: `fresh` or `in_place`. Default: `fresh` where this library starts VMMs, and
    /// `in_place` where another program does, since nothing else is possible there.
    #[serde(default)]
    pub strategy: Option<Strategy>,
    /// How many spares wait, restored and paused, for the resets to come: 0 to [`MAX_SPARES`](crate::sandbox::MAX_SPARES).
    /// A spare holds what it wrote of its memory where that is mapped, all of it where it is copied. With none, an empty VMM
    /// that was started ahead is restored while the caller waits. Of no use to [`Strategy::InPlace`]. Default: 1, or 0 where
    /// the memory is copied because there is too little of it.
    #[serde(default)]
    pub spares: Option<u32>,
}

impl GoldenOrigin {
    /// The golden snapshot in `directory`, with every setting as it is by default.
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

    /// How the golden snapshot is loaded for VMMs that this process starts.
    pub fn load_options(&self) -> LoadOptions {
        let limit = self.memory_limit_mib;
        LoadOptions {
            memory: self.memory,
            memory_limit: limit.map(|mib| mib.saturating_mul(1 << 20)),
            ..LoadOptions::default()
        }
    }

    /// The strategy on VMMs from `source`.
    pub(in crate::sandbox) fn strategy_on(&self, source: &VmmSource) -> Strategy {
        self.strategy.unwrap_or(match source {
            VmmSource::Spawn(_) => Strategy::Fresh,
            VmmSource::Attach { .. } => Strategy::InPlace,
        })
    }

    /// How many spares there are to be of the golden snapshot, once it was loaded like this.
    pub(in crate::sandbox) fn spares_of(&self, memory: &LoadedMemory) -> u32 {
        let is_short = matches!(memory.copied_because, Some(CopyReason::ShortOfMemory(_)));
        self.spares.unwrap_or(u32::from(!is_short))
    }

    /// Where evidence is kept. `None` for a golden snapshot that lies in no directory.
    pub(in crate::sandbox) fn evidence_directory(&self) -> Option<PathBuf> {
        let beside = || Some(self.directory.parent()?.join("evidence"));
        self.evidence_dir.clone().or_else(beside)
    }
}

/// Reads a table, or the directory alone.
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
                // Of `remote = "Self"`: the derived one, which isn't this trait's.
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
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs, for a kernel that needs one. Default: none.
    pub initramfs: Option<PathBuf>,
    /// The kernel's command line. Default: `console=hvc0 root=/dev/vda rootfstype=ext4 ro`, for a distribution's root.
    pub cmdline: String,
    /// An image of the root disk.
    pub root_disk: PathBuf,
    /// Whether the guest may not write to the root disk. Default: true.
    pub root_readonly: bool,
    /// The format of the root disk's image, `raw` or `qcow2`. Default: `raw`.
    pub root_format: DiskFormat,
    /// An image of a second, writable disk. The guest gets a private copy of it, so any number of sandboxes may be given
    /// the same one. Default: none.
    pub overlay: Option<PathBuf>,
    /// The format of the overlay's image, `raw` or `qcow2`. A qcow2 overlay is of version 2 and names its backing file, if
    /// it has one, by an absolute path, with its format
    /// (`qemu-img create -f qcow2 -o compat=0.10 -b /path/to/base.img -F raw overlay.qcow2`);
    /// [`overlay::qcow2`](crate::overlay::qcow2) says why. Default: `raw`.
    pub overlay_format: DiskFormat,
    /// The number of vCPUs. Default: 2.
    pub vcpus: u32,
    /// Memory, in MiB: 16 or more. Default: 1024.
    pub memory_mib: u64,
    /// The guest's vsock CID: 3 or more, and less than 4294967295. Default: 3.
    pub cid: u32,
    /// The vsock port of the guest's dispatcher. Default: 1024.
    pub port: u32,
}

impl ScaffoldOrigin {
    /// A kernel and an image of its root disk, with every setting as it is by default.
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

    /// What a table that has neither file begins as. The check of a configuration finds what stays empty.
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

    /// The VM of a cold boot.
    pub fn shape(&self) -> VmShape {
        VmShape {
            kernel: self.kernel.clone(),
            initramfs: self.initramfs.clone(),
            cmdline: self.cmdline.clone(),
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            cid: self.cid,
        }
    }

    /// The disks of a cold boot, in the VM's order.
    pub fn disks(&self) -> Vec<Disk> {
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
