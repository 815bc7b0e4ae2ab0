//! The words of the generated types: what a value of each is, which no contract says.
//!
//! The facts are those of upstream's source at v53.0 (`vmm/src/vm_config.rs`, `docs/`).

/// Each type's name and one sentence, in the order of the names.
const TYPES: &[(&str, &str)] = &[
    (
        "BalloonConfig",
        "A virtio-balloon device, by which the guest gives memory back to the host.",
    ),
    ("ConsoleConfig", "The virtio console of the guest."),
    (
        "ConsoleMode",
        "Where a console's output goes, and where its input comes from.",
    ),
    (
        "CoreSchedulingMode",
        "Which threads may share a physical core with a vCPU.",
    ),
    ("CpuAffinity", "The host's CPUs on which one vCPU may run."),
    (
        "CpuFeatures",
        "Features of the CPU that are off unless they are turned on.",
    ),
    ("CpuProfile", "The model of CPU that the guest sees."),
    (
        "CpuTopology",
        "The arrangement of the vCPUs that the guest sees.",
    ),
    ("CpusConfig", "The vCPUs of the VM."),
    (
        "DebugConsoleConfig",
        "The debug console: an I/O port of x86 whose bytes the VMM passes on.",
    ),
    (
        "DeviceConfig",
        "A device of the host that the guest gets by VFIO.",
    ),
    ("DeviceNode", "A device in the VM's device tree."),
    ("DiskConfig", "A disk of the guest."),
    (
        "FsConfig",
        "A directory of the host that the guest mounts by virtio-fs. A virtiofsd serves it.",
    ),
    (
        "GenericVhostUserConfig",
        "A virtio device of any type that another process serves by vhost-user.",
    ),
    (
        "HotplugMethod",
        "How the memory of a VM that runs is changed.",
    ),
    ("ImageType", "The format of a disk image."),
    (
        "LandlockConfig",
        "A path that the VMM may still use once it has confined itself by Landlock.",
    ),
    ("LockGranularity", "How much of a disk image the VMM locks."),
    ("MemoryConfig", "The memory of the guest."),
    (
        "MemoryRestoreMode",
        "When the memory of a snapshot is read.",
    ),
    (
        "MemoryZoneConfig",
        "A part of the guest's memory that has its own size, backing and host node.",
    ),
    (
        "MigrationMode",
        "When the memory of a VM that is migrated is sent.",
    ),
    ("NetConfig", "A network device of the guest."),
    ("NumaConfig", "A NUMA node of the guest."),
    ("NumaDistance", "How far another NUMA node is."),
    (
        "PayloadConfig",
        "What the VM boots: a kernel, with an initramfs and a command line, or a firmware.",
    ),
    (
        "PciDeviceInfo",
        "The name and the PCI address of a device that was added.",
    ),
    (
        "PciSegmentConfig",
        "The share of one PCI segment in the address space.",
    ),
    (
        "PlatformConfig",
        "What concerns the VM as a whole: PCI segments, SMBIOS texts, IOMMU, confidential computing.",
    ),
    (
        "PmemConfig",
        "A file of the host that the guest sees as persistent memory.",
    ),
    (
        "RateLimitGroupConfig",
        "A rate limit that several disks share.",
    ),
    (
        "RateLimiterConfig",
        "How many bytes and how many operations a device may do in a time.",
    ),
    (
        "ReceiveMigrationData",
        "How a VM is taken over from another VMM.",
    ),
    ("RestoreConfig", "The snapshot to restore, and how."),
    (
        "RestoredNetConfig",
        "The new file descriptors of one network device of a snapshot.",
    ),
    (
        "RngConfig",
        "The virtio-rng device, a source of random bytes for the guest.",
    ),
    ("RtcConfig", "The virtio-rtc device, a clock for the guest."),
    (
        "SendMigrationData",
        "How a VM is handed over to another VMM.",
    ),
    ("SerialConfig", "The serial port of the guest."),
    (
        "SgxEpcConfig",
        "A section of the guest's memory for SGX enclaves.",
    ),
    (
        "TimeoutStrategy",
        "What becomes of a migration that takes longer than its time limit.",
    ),
    (
        "TokenBucket",
        "A rate limit: each operation takes tokens from a bucket, which is filled again over time.",
    ),
    (
        "TpmConfig",
        "A TPM of the guest. A swtpm process emulates it.",
    ),
    (
        "UserDeviceConfig",
        "A PCI device that another process serves by vfio-user.",
    ),
    (
        "VdpaConfig",
        "A vDPA device of the host that the guest gets.",
    ),
    (
        "VhostMode",
        "Which side of a vhost-user connection listens: see [`NetConfig::vhost_mode`](super::NetConfig::vhost_mode).",
    ),
    (
        "VirtQueueAffinity",
        "The host's CPUs on which the thread of one disk queue may run.",
    ),
    (
        "VmAddUserDevice",
        "A PCI device that another process serves by vfio-user.",
    ),
    ("VmConfig", "The whole configuration of a VM."),
    (
        "VmCoredumpData",
        "The file that a core dump of the guest is written to.",
    ),
    (
        "VmCounters",
        "The counters of the VM's devices: by device, then by counter.",
    ),
    (
        "VmInfo",
        "The configuration, the state and the devices of the VM.",
    ),
    ("VmRemoveDevice", "The device to remove."),
    (
        "VmResize",
        "The new number of vCPUs and sizes of memory; what is absent stays.",
    ),
    ("VmResizeDisk", "The new size of a disk."),
    ("VmResizeZone", "The new size of a memory zone."),
    (
        "VmSnapshotConfig",
        "The directory that a snapshot is written to.",
    ),
    ("VmState", "The state of a VM, as the VMM says it."),
    (
        "VmmPingResponse",
        "The version, the process and the features of a VMM.",
    ),
    (
        "VsockConfig",
        "The vsock device, which connects the guest with a Unix socket of the host.",
    ),
];

/// Returns what a value of the type is.
pub(super) fn words(type_name: &str) -> Option<&'static str> {
    let found = TYPES.iter().find(|(name, _)| *name == type_name)?;
    Some(found.1)
}

/// Returns the name of every type that has words.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|(name, _)| *name)
}
