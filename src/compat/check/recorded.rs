// @generated from fixtures/ by tests/it/from_fixtures/index.rs: run `UPDATE=1 cargo test from_fixtures`.
//! Which operation is in which cassettes.

/// A cassette's name, and the releases that it was recorded of.
type Recorded = (&'static str, &'static [&'static str]);

/// The cassettes that each operation is in.
#[rustfmt::skip]
pub(super) const CASSETTES: &[(&str, &[Recorded])] = &[
    ("vm.add-device", &[
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.add-disk", &[
        ("bad-bodies", &["v51.2", "v52.0", "v53.0"]),
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.add-fs", &[
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.add-generic-vhost-user", &[
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.add-net", &[
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.add-pmem", &[
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.add-user-device", &[
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.add-vdpa", &[
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.add-vsock", &[
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.boot", &[
        ("bad-bodies", &["v51.2", "v52.0", "v53.0"]),
        ("demo", &["v53.0"]),
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.coredump", &[
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.counters", &[
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.create", &[
        ("bad-bodies", &["v51.2", "v52.0", "v53.0"]),
        ("demo", &["v53.0"]),
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.delete", &[
        ("bad-bodies", &["v51.2", "v52.0", "v53.0"]),
        ("demo", &["v53.0"]),
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.info", &[
        ("bad-bodies", &["v51.2", "v52.0", "v53.0"]),
        ("demo", &["v53.0"]),
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.nmi", &[
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.pause", &[
        ("demo", &["v53.0"]),
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.power-button", &[
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.reboot", &[
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.receive-migration", &[
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.remove-device", &[
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.resize", &[
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.resize-disk", &[
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.resize-zone", &[
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.restore", &[
        ("demo", &["v53.0"]),
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.resume", &[
        ("demo", &["v53.0"]),
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.send-migration", &[
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm-migration", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.shutdown", &[
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vm.snapshot", &[
        ("demo", &["v53.0"]),
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vmm.ping", &[
        ("demo", &["v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm-migration", &["v51.2", "v52.0", "v53.0"]),
    ]),
    ("vmm.shutdown", &[
        ("bad-bodies", &["v51.2", "v52.0", "v53.0"]),
        ("hot-plug", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-created", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-paused", &["v51.2", "v52.0", "v53.0"]),
        ("illegal-running", &["v51.2", "v52.0", "v53.0"]),
        ("life-cycle", &["v51.2", "v52.0", "v53.0"]),
        ("no-vm", &["v51.2", "v52.0", "v53.0"]),
    ]),
];
