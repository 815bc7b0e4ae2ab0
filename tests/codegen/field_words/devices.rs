//! The fields of the devices (`types/devices.rs`).

use super::{
    BACK_END_SOCKET, Fields, HOST_CPUS, ID, IOMMU, NO_IOMMU, PCI_DEVICE_ID, PCI_SEGMENT,
    QUEUE_SIZE, UNLESS_VHOST_USER, VFIO_USER_SOCKET,
};

/// The types in the order of their names, and their fields in the order in which they stand.
#[rustfmt::skip]
pub(super) const FIELDS: &[Fields] = &[
    ("DeviceConfig", &[
        ("fd", "Ignored by the server, which takes a descriptor of the VFIO device beside the body of `vm.add-device` \
            (`SCM_RIGHTS`). It replaces `path` and needs `iommufd_fd`."),
        ("id", ID),
        ("iommu", IOMMU),
        ("path", "The device's folder in the host's sysfs, such as `/sys/bus/pci/devices/0000:01:00.0`. The device \
            must be bound to a VFIO driver."),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
        ("x_exclude_mmap_bars", "The numbers of the BARs, 0 to 5, that the VMM must not map into the guest."),
        ("x_nv_gpudirect_clique", "The number of the device's NVIDIA GPUDirect clique; the guest's driver lets the \
            GPUs of a clique reach each other directly. Needs `vfio_p2p_dma`."),
    ]),

    ("DiskConfig", &[
        ("backing_files", "Lets a Qcow2 image use the backing files that it names. If `image_type` doesn't say \
            `Qcow2`, v51.2 ignores this, while v52.0 and v53.0 open the files and only then store `false`."),
        ("direct", "Opens the image with `O_DIRECT`, which goes past the host's page cache."),
        ("disable_aio", "Keeps the VMM from using Linux AIO for a raw image. Meant for upstream's tests."),
        ("disable_io_uring", "Keeps the VMM from using io_uring for the image. Meant for upstream's tests."),
        ("id", ID),
        ("image_type", "The format of the image, which must be the one that the VMM detects. With `Unknown` (here \
            `Undetermined`) the VMM takes what it detects, and refuses writes to sector 0 of a raw image."),
        ("iommu", UNLESS_VHOST_USER),
        ("lock_granularity", "What the lock on the image covers: `ByteRange` its bytes when it is locked, `Full` the \
            whole file, however it grows."),
        ("num_queues", "The number of queues, at most `boot_vcpus`."),
        ("path", "The path of the image or block device on the host, which the VMM locks while the VM is booted. \
            Refused with `vhost_socket`."),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
        ("queue_affinity", "The host CPUs of the queues' threads. The thread of a queue that isn't listed runs on \
            any."),
        ("queue_size", "The number of entries of each queue, more than 2 and a power of two (checked from v53.0 on)."),
        ("rate_limit_group", "The `id` of the group of `rate_limit_groups` whose limit the disk shares. Refused with \
            `rate_limiter_config` and, from v52.0 on, with `vhost_user`."),
        ("rate_limiter_config", "The limit of the disk, all queues together. Refused with `rate_limit_group` and, from \
            v52.0 on, with `vhost_user`."),
        ("readonly", "Opens the image read-only and refuses writes of the guest. VMMs that all do so can share the \
            image."),
        ("serial", "The serial number that the guest sees, at most 20 bytes. The VMM makes one from the device and \
            inode numbers of the image if absent."),
        ("sparse", "Lets the guest discard blocks, whose space the host gets back. `false` allocates the space of a \
            writable raw image when it is opened."),
        ("vhost_socket", "The path of the Unix socket on which the vhost-user back end listens. The VMM connects to it \
            and retries for up to 60 s."),
        ("vhost_user", "Uses the vhost-user back end at `vhost_socket` instead of an image. Needs memory that is \
            `shared` or in `hugepages`."),
    ]),

    ("FsConfig", &[
        ("socket", BACK_END_SOCKET),
        ("tag", "The name by which the guest mounts the folder, at most 36 bytes. The VMM cuts off the rest."),
        ("id", ID),
        ("iommu", NO_IOMMU),
        ("num_queues", "The number of request queues, at most `boot_vcpus`. The queue of high priority comes on top."),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
        ("queue_size", QUEUE_SIZE),
    ]),

    ("GenericVhostUserConfig", &[
        ("device_type", "The number of the virtio device type, such as 26 for a file system."),
        ("queue_sizes", "The number of entries of each queue, a power of two (checked from v53.0 on). The list has one \
            number for each queue."),
        ("socket", BACK_END_SOCKET),
        ("id", ID),
        ("iommu", NO_IOMMU),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
    ]),

    ("NetConfig", &[
        ("fds", "In an answer, the VMM's own descriptors of the TAP. The server ignores those of a body: `vm.add-net` \
            takes descriptors beside its body (`SCM_RIGHTS`), one for each pair of queues."),
        ("host_mac", "The MAC address of the TAP on the host. The VMM fills in the one that the TAP has if absent."),
        ("id", ID),
        ("iommu", UNLESS_VHOST_USER),
        ("ip", "The IPv4 or IPv6 address of the host on a TAP that the VMM makes; needs `mask`. A TAP that exists \
            keeps its address."),
        ("mac", "The MAC address of the guest's interface. A random one if absent."),
        ("mask", "The network mask of `ip`, which it needs."),
        ("mtu", "The MTU in bytes, at least 1,280. The VMM sets it on the TAP, if there is one, and tells the guest."),
        ("num_queues", "The number of receive and transmit queues together, at least 2; at most `boot_vcpus` pairs. \
            The control queue comes on top."),
        ("offload_csum", "Offers the guest to leave checksums to the host. `offload_tso` and `offload_ufo` are refused \
            without it."),
        ("offload_tso", "Offers the guest to leave the segmentation of TCP to the host."),
        ("offload_ufo", "Offers the guest to leave the fragmentation of UDP to the host."),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
        ("queue_size", QUEUE_SIZE),
        ("rate_limiter_config", "The limit of each queue on its own, receiving and transmitting. Refused with \
            `vhost_user` from v52.0 on."),
        ("tap", "The name of the TAP on the host, at most 15 bytes; the VMM makes one that doesn't exist. If absent, \
            and without descriptors or `vhost_user`, the VMM makes `vmtap0` or the next free one."),
        ("vhost_mode", "Which side listens on `vhost_socket`: with `Client` the back end, with `Server` the VMM, which \
            waits for it."),
        ("vhost_socket", "The path of the Unix socket of the vhost-user back end. With `Client` the VMM connects to it \
            and retries for up to 60 s; with `Server` it binds it, so it must not exist."),
        ("vhost_user", "Uses the vhost-user back end at `vhost_socket` instead of a TAP. Needs memory that is `shared` \
            or in `hugepages`."),
    ]),

    ("PmemConfig", &[
        ("file", "The path of the host's file that the guest sees as persistent memory. In a folder the VMM makes a \
            file without a name, of `size` bytes."),
        ("discard_writes", "Opens the file read-only and keeps the guest's writes in memory, where they are lost with \
            the VM."),
        ("id", ID),
        ("iommu", IOMMU),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
        ("size", "The size in bytes, a multiple of 2 MiB. That of the file if absent; a folder needs one."),
    ]),

    ("RateLimiterConfig", &[
        ("bandwidth", "The limit of the bytes that are transferred."),
        ("ops", "The limit of the operations: the requests of a disk, the packets of a network device."),
    ]),

    ("TokenBucket", &[
        ("refill_time", "The time in which an empty bucket fills up, in milliseconds. 0 turns the limit off."),
        ("size", "The capacity of the bucket, in bytes for `bandwidth` and in operations for `ops`. 0 turns the limit \
            off."),
        ("one_time_burst", "What may be used at first on top of `size`, in the same unit. It never comes back."),
    ]),

    ("VdpaConfig", &[
        ("path", "The path of the host's vhost-vDPA device, such as `/dev/vhost-vdpa-0`."),
        ("id", ID),
        ("iommu", IOMMU),
        ("num_queues", "The number of virtqueues of the device that the guest gets."),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
    ]),

    ("VirtQueueAffinity", &[
        ("host_cpus", HOST_CPUS),
        ("queue_index", "The number of the queue, from 0."),
    ]),

    ("VmAddUserDevice", &[
        ("socket", VFIO_USER_SOCKET),
        ("id", ID),
        ("iommu", NO_IOMMU),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
    ]),

    ("VsockConfig", &[
        ("cid", "The guest's context id (CID). 0, 1, 2 and 4,294,967,295 are refused."),
        ("socket", "The path of the Unix socket that the VMM binds for connections of the host; it must not exist, and \
            is removed when the VM shuts down. For port P of the host the VMM connects the guest to `<socket>_P`."),
        ("id", ID),
        ("iommu", IOMMU),
        ("pci_device_id", PCI_DEVICE_ID),
        ("pci_segment", PCI_SEGMENT),
    ]),
];
