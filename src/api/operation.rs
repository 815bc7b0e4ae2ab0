//! Written by hand until the generator takes over: the same shape as what it will write.

use super::Method;

/// An operation of the VMM's API, named as its path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `vmm.ping`
    VmmPing,
    /// `vmm.shutdown`
    VmmShutdown,
    /// `vm.info`
    VmInfo,
    /// `vm.counters`
    VmCounters,
    /// `vm.create`
    VmCreate,
    /// `vm.delete`
    VmDelete,
    /// `vm.boot`
    VmBoot,
    /// `vm.pause`
    VmPause,
    /// `vm.resume`
    VmResume,
    /// `vm.shutdown`
    VmShutdown,
    /// `vm.reboot`
    VmReboot,
    /// `vm.power-button`
    VmPowerButton,
    /// `vm.resize`
    VmResize,
    /// `vm.resize-disk`
    VmResizeDisk,
    /// `vm.resize-zone`
    VmResizeZone,
    /// `vm.add-device`
    VmAddDevice,
    /// `vm.remove-device`
    VmRemoveDevice,
    /// `vm.add-disk`
    VmAddDisk,
    /// `vm.add-fs`
    VmAddFs,
    /// `vm.add-generic-vhost-user`
    VmAddGenericVhostUser,
    /// `vm.add-pmem`
    VmAddPmem,
    /// `vm.add-net`
    VmAddNet,
    /// `vm.add-vsock`
    VmAddVsock,
    /// `vm.add-vdpa`
    VmAddVdpa,
    /// `vm.add-user-device`
    VmAddUserDevice,
    /// `vm.snapshot`
    VmSnapshot,
    /// `vm.coredump`
    VmCoredump,
    /// `vm.nmi`
    VmNmi,
    /// `vm.restore`
    VmRestore,
    /// `vm.receive-migration`
    VmReceiveMigration,
    /// `vm.send-migration`
    VmSendMigration,
}

impl Operation {
    /// Every operation, sorted by name.
    pub const ALL: &[Operation] = &[
        Operation::VmAddDevice,
        Operation::VmAddDisk,
        Operation::VmAddFs,
        Operation::VmAddGenericVhostUser,
        Operation::VmAddNet,
        Operation::VmAddPmem,
        Operation::VmAddUserDevice,
        Operation::VmAddVdpa,
        Operation::VmAddVsock,
        Operation::VmBoot,
        Operation::VmCoredump,
        Operation::VmCounters,
        Operation::VmCreate,
        Operation::VmDelete,
        Operation::VmInfo,
        Operation::VmNmi,
        Operation::VmPause,
        Operation::VmPowerButton,
        Operation::VmReboot,
        Operation::VmReceiveMigration,
        Operation::VmRemoveDevice,
        Operation::VmResize,
        Operation::VmResizeDisk,
        Operation::VmResizeZone,
        Operation::VmRestore,
        Operation::VmResume,
        Operation::VmSendMigration,
        Operation::VmShutdown,
        Operation::VmSnapshot,
        Operation::VmmPing,
        Operation::VmmShutdown,
    ];

    /// The name as the document has it: `vm.info`.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::VmmPing => "vmm.ping",
            Operation::VmmShutdown => "vmm.shutdown",
            Operation::VmInfo => "vm.info",
            Operation::VmCounters => "vm.counters",
            Operation::VmCreate => "vm.create",
            Operation::VmDelete => "vm.delete",
            Operation::VmBoot => "vm.boot",
            Operation::VmPause => "vm.pause",
            Operation::VmResume => "vm.resume",
            Operation::VmShutdown => "vm.shutdown",
            Operation::VmReboot => "vm.reboot",
            Operation::VmPowerButton => "vm.power-button",
            Operation::VmResize => "vm.resize",
            Operation::VmResizeDisk => "vm.resize-disk",
            Operation::VmResizeZone => "vm.resize-zone",
            Operation::VmAddDevice => "vm.add-device",
            Operation::VmRemoveDevice => "vm.remove-device",
            Operation::VmAddDisk => "vm.add-disk",
            Operation::VmAddFs => "vm.add-fs",
            Operation::VmAddGenericVhostUser => "vm.add-generic-vhost-user",
            Operation::VmAddPmem => "vm.add-pmem",
            Operation::VmAddNet => "vm.add-net",
            Operation::VmAddVsock => "vm.add-vsock",
            Operation::VmAddVdpa => "vm.add-vdpa",
            Operation::VmAddUserDevice => "vm.add-user-device",
            Operation::VmSnapshot => "vm.snapshot",
            Operation::VmCoredump => "vm.coredump",
            Operation::VmNmi => "vm.nmi",
            Operation::VmRestore => "vm.restore",
            Operation::VmReceiveMigration => "vm.receive-migration",
            Operation::VmSendMigration => "vm.send-migration",
        }
    }

    /// The request path: `/api/v1/vm.info`.
    pub const fn path(self) -> &'static str {
        match self {
            Operation::VmmPing => "/api/v1/vmm.ping",
            Operation::VmmShutdown => "/api/v1/vmm.shutdown",
            Operation::VmInfo => "/api/v1/vm.info",
            Operation::VmCounters => "/api/v1/vm.counters",
            Operation::VmCreate => "/api/v1/vm.create",
            Operation::VmDelete => "/api/v1/vm.delete",
            Operation::VmBoot => "/api/v1/vm.boot",
            Operation::VmPause => "/api/v1/vm.pause",
            Operation::VmResume => "/api/v1/vm.resume",
            Operation::VmShutdown => "/api/v1/vm.shutdown",
            Operation::VmReboot => "/api/v1/vm.reboot",
            Operation::VmPowerButton => "/api/v1/vm.power-button",
            Operation::VmResize => "/api/v1/vm.resize",
            Operation::VmResizeDisk => "/api/v1/vm.resize-disk",
            Operation::VmResizeZone => "/api/v1/vm.resize-zone",
            Operation::VmAddDevice => "/api/v1/vm.add-device",
            Operation::VmRemoveDevice => "/api/v1/vm.remove-device",
            Operation::VmAddDisk => "/api/v1/vm.add-disk",
            Operation::VmAddFs => "/api/v1/vm.add-fs",
            Operation::VmAddGenericVhostUser => "/api/v1/vm.add-generic-vhost-user",
            Operation::VmAddPmem => "/api/v1/vm.add-pmem",
            Operation::VmAddNet => "/api/v1/vm.add-net",
            Operation::VmAddVsock => "/api/v1/vm.add-vsock",
            Operation::VmAddVdpa => "/api/v1/vm.add-vdpa",
            Operation::VmAddUserDevice => "/api/v1/vm.add-user-device",
            Operation::VmSnapshot => "/api/v1/vm.snapshot",
            Operation::VmCoredump => "/api/v1/vm.coredump",
            Operation::VmNmi => "/api/v1/vm.nmi",
            Operation::VmRestore => "/api/v1/vm.restore",
            Operation::VmReceiveMigration => "/api/v1/vm.receive-migration",
            Operation::VmSendMigration => "/api/v1/vm.send-migration",
        }
    }

    /// The HTTP method.
    pub const fn method(self) -> Method {
        match self {
            Operation::VmmPing | Operation::VmInfo | Operation::VmCounters => Method::Get,
            _ => Method::Put,
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
