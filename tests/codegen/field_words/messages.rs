//! The fields of answers and of the other bodies (`types/answers.rs`, `types/bodies.rs`).

use super::{Fields, PCI_BDF};

/// The types in the order of their names, and their fields in the order in which they stand.
#[rustfmt::skip]
pub(super) const FIELDS: &[Fields] = &[
    ("DeviceNode", &[
        ("children", "The `id`s of the nodes below this one. A virtio device is below the node of its PCI device."),
        ("id", "The name of the node, which is also its key in the device tree."),
        ("resources", "The PCI BARs, address ranges, interrupts and memory slots of the node, in the VMM's own form. \
            Addresses and sizes are in bytes."),
        ("parent", "The `id` of the node above this one."),
        ("pci_bdf", PCI_BDF),
    ]),

    ("PciDeviceInfo", &[
        ("bdf", PCI_BDF),
        ("id", "The name of the device for `vm.remove-device`: that of the request, or the one that the VMM made up."),
    ]),

    ("ReceiveMigrationData", &[
        ("receiver_url", "Where the VMM listens for the sender: `tcp:<host>:<port>`, or `unix:<path>` of a socket that \
            doesn't exist yet."),
        ("memory_mode", "When the memory comes: with `Precopy` before the VM resumes here, with `Postcopy` \
            (experimental) when the guest needs it."),
        ("tls_dir", "The folder with `server-cert.pem`, `server-key.pem` and `ca-cert.pem`, which turns on mutual TLS. \
            Refused with `unix:`."),
    ]),

    ("RestoreConfig", &[
        ("source_url", "The folder of the snapshot, as `file://` and its path."),
        ("memory_restore_mode", "When the memory is read: with `Copy` before the call answers, with `OnDemand` when \
            the guest needs it, which takes the right to use userfaultfd. v51.2 ignores this and copies."),
        ("net_fds", "The new descriptors of the network devices that had descriptors (`fds`) in the snapshot. Each of \
            these devices must be listed."),
        ("prefault", "Allocates all of the memory on the host before the call answers; replaces the `prefault` of the \
            snapshot's memory. Refused with `OnDemand`."),
        ("resume", "Resumes the VM after the restore, which leaves it `Paused` otherwise. v51.2 ignores this."),
    ]),

    ("RestoredNetConfig", &[
        ("id", "The `id` of the network device in the snapshot."),
        ("fds", "Ignored by the server. The descriptors travel beside the body (`SCM_RIGHTS`), in the order of \
            `net_fds`."),
        ("num_fds", "The number of the request's descriptors that belong to this device: as many as it had, one for \
            each pair of queues."),
    ]),

    ("SendMigrationData", &[
        ("destination_url", "Where the receiver listens: `tcp:<host>:<port>` or `unix:<path>`."),
        ("connections", "The number of parallel TCP connections. More than 1 is refused with `unix:` and with \
            `Postcopy`."),
        ("downtime_ms", "The pause to aim at, in milliseconds: the VM is paused once the rest of its memory can be \
            sent in that time."),
        ("local", "Hands the memory over as file descriptors instead of copying it; `unix:` only. The memory must be \
            `shared` or in `hugepages`."),
        ("memory_mode", "When the memory is sent: with `Precopy` before the VM resumes at the receiver, with \
            `Postcopy` (experimental) when the guest needs it. `Postcopy` is refused with `local`."),
        ("timeout_s", "The seconds after which `timeout_strategy` applies, if the pause would still be longer than \
            `downtime_ms`."),
        ("timeout_strategy", "What the timeout does: `Cancel` ends the migration and the VM stays here, `Ignore` \
            pauses the VM and sends the rest, however long that takes."),
        ("tls_dir", "The folder with `client-cert.pem`, `client-key.pem` and `ca-cert.pem`, which turns on mutual TLS. \
            Refused with `unix:`."),
    ]),

    ("VmCoredumpData", &[
        ("destination_url", "The file to write, as `file://` and its path; it must not exist. Only a VMM built with \
            `guest_debug` for x86-64 has the operation."),
    ]),

    ("VmInfo", &[
        ("config", "The configuration as the VMM has it, with the values that it filled in and changed."),
        ("memory_actual_size", "The memory of the guest in bytes: the configured memory less the balloon's, plus what \
            virtio-mem has plugged. Up to v51.2 virtio-mem counts as it was requested."),
        ("state", "The state of the VM. `Shutdown` is never seen: after `vm.shutdown` the state is `Created`."),
        ("device_tree", "The devices of a VM that is booted, by `id`; absent in `Created`."),
    ]),

    ("VmRemoveDevice", &[
        ("id", "The name of the device: the `id` of its configuration, or of the answer to the call that added it."),
    ]),

    ("VmResize", &[
        ("desired_balloon", "The new size of the balloon in bytes, rounded down to pages of 4 KiB; unchanged if \
            absent. A running VM must have a balloon."),
        ("desired_ram", "The new memory in bytes, unchanged if absent; not for `zones`. On a running VM `Acpi` adds \
            multiples of 128 MiB and takes away at the next boot only, `VirtioMem` goes in steps of 2 MiB and not \
            below the size at boot."),
        ("desired_vcpus", "The new number of vCPUs, at most `max_vcpus`; unchanged if absent. While the guest still \
            gives up vCPUs the answer is 429."),
    ]),

    ("VmResizeDisk", &[
        ("desired_size", "The new size in bytes, a multiple of 512. A Qcow2 image only grows, and not with a backing \
            file; a VHD or VHDX image can't be resized."),
        ("id", "The `id` of the disk, which must not be a vhost-user one."),
    ]),

    ("VmResizeZone", &[
        ("desired_ram", "The new memory of the zone in bytes, its `size` included. On a running VM at least `size` and \
            at most `hotplug_size` more, in steps of 2 MiB."),
        ("id", "The `id` of the zone in `MemoryConfig.zones`."),
    ]),

    ("VmSnapshotConfig", &[
        ("destination_url", "The folder of the snapshot, as `file://` and its path. It must exist, without the files \
            `config.json`, `state.json` and `memory-ranges`."),
    ]),

    ("VmmPingResponse", &[
        ("build_version", "The version that the build found: the output of `git describe`, such as `v53.0`, or else \
            `v` and `version`. A builder may have added to it."),
        ("features", "The Cargo features that the VMM was built with, such as `kvm` and `io_uring`."),
        ("pid", "The process id of the VMM, in its own pid namespace."),
        ("version", "The release, such as `53.0.0`."),
    ]),
];
