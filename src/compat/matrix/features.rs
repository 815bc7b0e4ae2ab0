//! The features that a sandbox can use, as data.

use Evidence::{Field, InOrder, Status};

/// One row of the matrix.
pub(super) struct Feature {
    /// The name of the feature, in Markdown.
    pub(super) name: &'static str,
    /// The operations or fields that show that a release has the feature.
    pub(super) evidence: Evidence,
}

/// The evidence for a feature: a contract has to have it, and a recorded exchange has to show it.
#[derive(Clone, Copy)]
pub(super) enum Evidence {
    /// These operations succeed one after another on one VMM.
    InOrder(&'static [&'static str]),
    /// This operation succeeds with this status.
    Status(&'static str, u16),
    /// The body of this operation has this field, with this value if one is given. Dots in the name lead into objects
    /// and the items of lists.
    Field(&'static str, &'static str, Option<&'static str>),
}

const fn row(name: &'static str, evidence: Evidence) -> Feature {
    Feature { name, evidence }
}

const fn field(name: &'static str, operation: &'static str, field: &'static str) -> Feature {
    row(name, Field(operation, field, None))
}

pub(super) const FEATURES: &[Feature] = &[
    row("boot", InOrder(&["vm.create", "vm.boot"])),
    row("pause and snapshot", InOrder(&["vm.pause", "vm.snapshot"])),
    row(
        "reset in place: `vm.delete`, `vm.restore`, `vm.resume` on one VMM",
        InOrder(&["vm.delete", "vm.restore", "vm.resume"]),
    ),
    field("`resume` with the restore", "vm.restore", "resume"),
    row(
        "memory restored on demand",
        Field("vm.restore", "memory_restore_mode", Some("OnDemand")),
    ),
    field(
        "network descriptors with the restore",
        "vm.restore",
        "net_fds",
    ),
    field("network hot-plugged by descriptor", "vm.add-net", "fds"),
    field("device hot-plugged by descriptor", "vm.add-device", "fd"),
    field("vsock", "vm.create", "vsock"),
    field("read-only disk", "vm.create", "disks.readonly"),
    row("disk hot-plugged while running", Status("vm.add-disk", 200)),
    field(
        "disk with a backing file",
        "vm.create",
        "disks.backing_files",
    ),
    field(
        "disk with an explicit format",
        "vm.create",
        "disks.image_type",
    ),
    field(
        "granularity of disk locks",
        "vm.create",
        "disks.lock_granularity",
    ),
    row("disk resized", InOrder(&["vm.resize-disk"])),
    row("CPUs and memory resized", InOrder(&["vm.resize"])),
    field("Landlock", "vm.create", "landlock_enable"),
    field(
        "nested virtualisation switched off",
        "vm.create",
        "cpus.nested",
    ),
    field("core scheduling", "vm.create", "cpus.core_scheduling"),
    field("IOMMUFD", "vm.create", "platform.iommufd"),
    field("generic vhost-user", "vm.create", "generic_vhost_user"),
    row(
        "migration with post-copy",
        Field("vm.send-migration", "memory_mode", Some("Postcopy")),
    ),
    field("migration through TLS", "vm.send-migration", "tls_dir"),
];
