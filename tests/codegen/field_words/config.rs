//! The fields of the configuration of a VM (`types/config.rs`).

use super::{
    BOOT_IOMMU, CONSOLE_FILE, Fields, HOST_CPUS, HUGEPAGE_SIZE, ID, NO_IOMMU, PCI_DEVICE_ID,
    PCI_SEGMENT, PREFAULT, RESERVE, VFIO_USER_SOCKET,
};

/// The types in the order of their names, and their fields in the order in which they stand.
#[rustfmt::skip]
pub(super) const FIELDS: &[Fields] = &[
    ("BalloonConfig", &[
        ("size", "The memory that the balloon asks the guest to give up, in bytes; less than the VM's memory. The VMM \
            rounds it down to pages of 4 KiB."),
        ("deflate_on_oom", "Lets the guest take memory back from the balloon when it runs out."),
        ("free_page_reporting", "Lets the guest report pages that it has freed, whose memory the host gets back."),
        ("id", "Names the device in the device tree, where it is `__balloon` if this is absent; unique in the VM and \
            without leading `__`. The device can't be removed."),
        ("iommu", BOOT_IOMMU),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
    ]),

    ("ConsoleConfig", &[
        ("mode", "Where the console is: `Tty` is the VMM's stdin and stdout, `Pty` a new pseudo-terminal, `File` the \
            `file`; `Null` drops the output, `Off` makes no device. `Socket` is refused."),
        ("file", CONSOLE_FILE),
        ("id", "Names the device in the device tree, where it is `__console` if this is absent; unique in the VM and \
            without leading `__`. The device can't be removed."),
        ("iommu", BOOT_IOMMU),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
        ("socket", "Not used, since the console has no mode `Socket`."),
    ]),

    ("CpuAffinity", &[
        ("host_cpus", HOST_CPUS),
        ("vcpu", "The number of the vCPU, from 0."),
    ]),

    ("CpuFeatures", &[
        ("amx", "Turns on Intel AMX (matrix operations) for the guest; x86-64 only."),
    ]),

    ("CpuTopology", &[
        ("cores_per_die", "The number of cores of each die, at least 1."),
        ("dies_per_package", "The number of dies of each package, at least 1; on AArch64 exactly 1."),
        ("packages", "The number of packages (sockets), at least 1. The product of the four numbers is `max_vcpus`."),
        ("threads_per_core", "The number of threads of each core, at least 1; on x86-64 at most 2 (checked from v52.0 \
            on)."),
    ]),

    ("CpusConfig", &[
        ("boot_vcpus", "The number of vCPUs that the VM boots with, at most `max_vcpus`. `vm.resize` changes it."),
        ("max_vcpus", "The number of vCPUs that `vm.resize` can reach. At v53.0 at most 8,192 on x86-64 with KVM and \
            255 elsewhere."),
        ("affinity", "The host CPUs of vCPUs. A vCPU that isn't listed runs on any."),
        ("core_scheduling", "Which threads a vCPU thread may share a core (SMT) with: `Vm` allows other vCPUs of this \
            VM, `Vcpu` none, `Off` any. Without effect on kernels before 5.14."),
        ("features", "CPU features that are off unless they are turned on here."),
        ("kvm_hyperv", "Makes KVM emulate the interrupt controller and timers of Hyper-V, which a Windows guest \
            expects; x86-64 only."),
        ("max_phys_bits", "The most bits of a guest physical address. The VMM takes the host's number if that is \
            less."),
        ("nested", "Shows the guest VMX or SVM, with which it can run VMs of its own. Only x86-64 can turn it off."),
        ("profile", "The CPU model that the guest sees. `Host`, the only one at v53.0, leaves the features of the host \
            as they are."),
        ("topology", "The threads, cores, dies and packages that the guest sees. Their product is `max_vcpus`."),
    ]),

    ("DebugConsoleConfig", &[
        ("mode", "Where the output goes: `Tty` is the VMM's stdout, `File` the `file`; `Off` and `Null` make no \
            device. `Pty` makes a terminal but no device, and `Socket` is refused."),
        ("file", CONSOLE_FILE),
        ("iobase", "The number of the x86 I/O port that the guest writes to; 233 (`0xe9`) if absent."),
    ]),

    ("LandlockConfig", &[
        ("access", "What the VMM may do at the path: `r`, `w` or `rw`."),
        ("path", "The path of a file or folder of the host, which must exist. The rule of a folder holds for all below \
            it."),
    ]),

    ("MemoryConfig", &[
        ("size", "The guest's memory in bytes, a multiple of the size of its pages. 0 means that `zones` has the \
            memory."),
        ("hotplug_method", "How `vm.resize` changes the memory: `Acpi` only adds to a running VM, `VirtioMem` adds and \
            takes away. `zones` with a `hotplug_size` need `VirtioMem`."),
        ("hotplug_size", "The bytes by which the memory can grow, more than 0. `VirtioMem` wants a multiple of 128 \
            MiB; `Acpi` may lose some to alignment."),
        ("hotplugged_size", "The bytes of `hotplug_size` that are there at boot, a multiple of 2 MiB; refused with \
            `Acpi`. `vm.resize` updates it."),
        ("hugepage_size", HUGEPAGE_SIZE),
        ("hugepages", "Takes the memory from the host's huge pages, enough of which must be free, and maps it shared."),
        ("mergeable", "Marks the memory for merging by the host's KSM; refused with `shared` from v52.0 on."),
        ("prefault", PREFAULT),
        ("reserve", RESERVE),
        ("shared", "Maps the memory shared (`MAP_SHARED`), as vhost-user and vfio-user devices and a local migration \
            need. `hugepages` implies it."),
        ("thp", "Asks the kernel for transparent huge pages (`MADV_HUGEPAGE`) for memory without `hugepages`, zones \
            included."),
        ("zones", "The memory in parts that differ; `size` must be 0. Of the other fields, the zones go by \
            `hotplug_method` and `thp` only, and up to v51.2 by `mergeable`."),
    ]),

    ("MemoryZoneConfig", &[
        ("id", "Names the zone in `vm.resize-zone` and `NumaConfig.memory_zones`. Unique among the ids of the VM, and \
            without leading `__`."),
        ("size", "The memory of the zone at boot in bytes, a multiple of the size of its pages."),
        ("file", "The path of the host's file that the zone maps from its beginning, not a folder. The VMM opens it \
            read-only unless `shared` (up to v50.2 read-write)."),
        ("host_numa_node", "The number of the host's NUMA node that the memory must come from. Refused with `shared` \
            and `file` together."),
        ("hotplug_size", "The bytes by which `vm.resize-zone` can grow the zone, a multiple of 128 MiB other than 0. \
            Refused with the `hotplug_method` `Acpi`."),
        ("hotplugged_size", "The bytes of `hotplug_size` that are there at boot, a multiple of 2 MiB. `vm.resize-zone` \
            updates it."),
        ("hugepage_size", HUGEPAGE_SIZE),
        ("hugepages", "Takes the memory from the host's huge pages, enough of which must be free, and maps it shared. \
            With `file` the pages are the file's instead."),
        ("mergeable", "Marks the zone for merging by the host's KSM; refused with `shared`."),
        ("prefault", PREFAULT),
        ("reserve", RESERVE),
        ("shared", "Maps the zone shared (`MAP_SHARED`), so that writes reach the `file`. A snapshot leaves out a \
            shared zone with a `file`."),
    ]),

    ("NumaConfig", &[
        ("cpus", "The numbers of the node's vCPUs; not empty. Refused with `device_id`."),
        ("device_id", "The `id` of a PCI device that makes up the node, such as a GPU of `devices` (ACPI generic \
            initiator). Refused with `cpus` and `memory_zones`."),
        ("distances", "The distances to other nodes. A pair of nodes that neither side lists is at 20."),
        ("guest_numa_id", "The number of the node in the guest, unique. The VMM refuses a node without it."),
        ("memory_zones", "The `id`s of the zones with the node's memory; not empty. A zone belongs to one node at \
            most."),
        ("pci_segments", "The numbers of the node's PCI segments. Segment 0 belongs to node 0, as does any segment \
            that no node lists."),
        ("sgx_epc_sections", "The `id`s of the node's sections of `sgx_epc`."),
    ]),

    ("NumaDistance", &[
        ("destination", "The `guest_numa_id` of the other node."),
        ("distance", "The relative cost of an access, as in ACPI's SLIT table, where 10 is a local one."),
    ]),

    ("PayloadConfig", &[
        ("cmdline", "The command line of the kernel. The VMM drops it if `firmware` is set."),
        ("firmware", "The path of a firmware on the host, which boots the guest from its devices. Refused with \
            `kernel`."),
        ("initramfs", "The path of the initial RAM file system on the host, for the kernel. The VMM drops it if \
            `firmware` is set."),
        ("kernel", "The path of a kernel on the host: on x86-64 an ELF file with a PVH entry or a bzImage. Refused \
            with `firmware`."),
    ]),

    ("PciSegmentConfig", &[
        ("mmio32_aperture_weight", "The segment's share of the 32-bit MMIO space, in relation to the weights of the \
            other segments; not 0."),
        ("mmio64_aperture_weight", "The segment's share of the 64-bit MMIO space, in relation to the weights of the \
            other segments; not 0."),
        ("pci_segment", "The number of the segment, less than `num_pci_segments`."),
    ]),

    ("PlatformConfig", &[
        ("chassis_asset_tag", "The asset tag of the guest's SMBIOS chassis (type 3); x86-64 only."),
        ("iommu_address_width_bits", "The width of the addresses that the virtio-iommu translates, in bits; at most \
            64."),
        ("iommu_segments", "The numbers of PCI segments that are behind the virtio-iommu as a whole, so that a running \
            VM can get devices with `iommu`. All devices on them must have `iommu`."),
        ("iommufd", "Uses iommufd (`/dev/iommu`) for VFIO devices instead of a VFIO container and groups; KVM only."),
        ("iommufd_fd", "The VMM's descriptor of an open iommufd, for `iommufd`. The API can't set it: the server \
            replaces the number of a body by -1."),
        ("num_pci_segments", "The number of PCI segments, 1 to 96, each with a bus of 31 slots."),
        ("oem_strings", "The OEM strings in the guest's SMBIOS tables (type 11); x86-64 only."),
        ("serial_number", "The former name of `system_serial_number`, which v53.0 still accepts."),
        ("system_family", "The family in the guest's SMBIOS system information (type 1); x86-64 only."),
        ("system_manufacturer", "The manufacturer in the guest's SMBIOS system information (type 1); x86-64 only. \
            `Cloud Hypervisor` if absent."),
        ("system_product_name", "The product name in the guest's SMBIOS system information (type 1); x86-64 only. \
            `cloud-hypervisor` if absent."),
        ("system_serial_number", "The serial number in the guest's SMBIOS system information (type 1); x86-64 only."),
        ("system_sku_number", "The SKU number in the guest's SMBIOS system information (type 1); x86-64 only."),
        ("system_uuid", "The UUID in the guest's SMBIOS system information (type 1); x86-64 only. The boot fails if it \
            is no UUID."),
        ("system_version", "The product version in the guest's SMBIOS system information (type 1); x86-64 only."),
        ("uuid", "The former name of `system_uuid`, which v53.0 still accepts."),
        ("vfio_p2p_dma", "Lets VFIO devices reach each other's BARs by DMA (peer to peer). `x_nv_gpudirect_clique` \
            needs it."),
    ]),

    ("RateLimitGroupConfig", &[
        ("id", "Names the group in `DiskConfig.rate_limit_group`; not empty, unique among the ids of the VM."),
        ("rate_limiter_config", "The limit that the disks of the group share. It must have `bandwidth`, `ops` or \
            both."),
    ]),

    ("RngConfig", &[
        ("src", "The path of the host's file that the VMM reads random bytes from, such as `/dev/urandom`."),
        ("id", "Names the device in the device tree, where it is `__rng` if this is absent; unique in the VM and \
            without leading `__`. The device can't be removed."),
        ("iommu", BOOT_IOMMU),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
    ]),

    ("RtcConfig", &[
        ("id", "Names the device in the device tree, where it is `__rtc` if this is absent; unique in the VM and \
            without leading `__`. The device can't be removed."),
        ("iommu", BOOT_IOMMU),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
    ]),

    ("SerialConfig", &[
        ("mode", "Where the serial port is: `Tty` is the VMM's stdin and stdout, `Pty` a new pseudo-terminal, `Socket` \
            the `socket`, `File` the `file`; `Null` drops the output, `Off` makes no device."),
        ("file", CONSOLE_FILE),
        ("iommu", "Without effect: the serial port is no PCI device."),
        ("socket", "The path of the Unix socket of the mode `Socket`; without it that mode ends the VMM. The VMM binds \
            it in `vm.create` and `vm.restore`, which fail if it exists, and removes it when the VM shuts down."),
    ]),

    ("SgxEpcConfig", &[
        ("id", "Names the section in `NumaConfig.sgx_epc_sections`."),
        ("prefault", "Allocates the section on the host before the VM starts."),
        ("size", "The size of the section in bytes, a multiple of 4 KiB other than 0."),
    ]),

    ("TpmConfig", &[
        ("socket", "The path of the Unix socket on which `swtpm` listens for control commands when the VM boots."),
    ]),

    ("UserDeviceConfig", &[
        ("socket", VFIO_USER_SOCKET),
        ("id", ID),
        ("iommu", NO_IOMMU),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
    ]),

    ("VmConfig", &[
        ("balloon", "The virtio-balloon, with which the host takes memory back from the guest."),
        ("console", "The virtio-console (`hvc0` in Linux)."),
        ("cpus", "The vCPUs."),
        ("debug_console", "The debug console, an I/O port to which firmware and early boot code write; x86-64 only."),
        ("devices", "The PCI devices of the host that the guest gets through VFIO."),
        ("disks", "The virtio-block devices."),
        ("fs", "The virtio-fs devices: folders of the host, which a daemon such as `virtiofsd` serves."),
        ("generic_vhost_user", "The virtio devices of other types whose back ends are vhost-user processes."),
        ("iommu", "Adds a virtio-iommu. The VMM sets it itself if a device has `iommu` or there are `iommu_segments`."),
        ("landlock_enable", "Confines the VMM by Landlock, in `vm.create` and `vm.restore`, to the files of this \
            configuration and `landlock_rules`. The kernel allows a process 16 of these calls."),
        ("landlock_rules", "Further files and folders that the VMM may use, such as those of devices that are added \
            later."),
        ("memory", "The guest's memory."),
        ("net", "The virtio-net devices."),
        ("numa", "The NUMA nodes that the guest sees."),
        ("payload", "The firmware or kernel that the VM boots. `vm.boot` fails without one."),
        ("pci_segments", "The shares of the PCI segments in the MMIO space."),
        ("platform", "PCI segments, IOMMU, VFIO and SMBIOS data of the VM as a whole."),
        ("pmem", "The virtio-pmem devices: files of the host that the guest sees as persistent memory."),
        ("pvpanic", "Adds a pvpanic device, through which the guest reports a panic. The VMM passes it on as the event \
            `panic` of its event monitor."),
        ("rate_limit_groups", "The limits that several disks share."),
        ("rng", "The virtio-rng, from which the guest gets random bytes."),
        ("rtc", "The virtio-rtc, from which the guest reads the host's time."),
        ("serial", "The serial port (`ttyS0` in Linux on x86-64)."),
        ("sgx_epc", "The sections of the SGX enclave page cache (EPC) that the guest has; x86-64 only."),
        ("tpm", "The TPM 2.0 device, whose back end is `swtpm`."),
        ("user_devices", "The PCI devices that other processes emulate over vfio-user."),
        ("vdpa", "The vDPA devices of the host that the guest gets."),
        ("vsock", "The virtio-vsock, for streams between host and guest."),
        ("watchdog", "Adds a virtio-watchdog. It reboots the VM once the guest's driver, after its first ping, is \
            silent for more than 20 seconds."),
    ]),
];
