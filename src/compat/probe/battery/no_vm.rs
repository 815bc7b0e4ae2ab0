//! The scenarios that call every operation while there is no VM.

use super::bodies::*;
use super::*;
use ErrorKind::{NotCreated, Rejected, VmmGone, WrongState};
use Operation::*;

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "no-vm",
        about: "Every operation when there is no VM; vm.create, which makes one, is in the others.",
        steps: vec![
            call(VmmPing, Expected::Fields(json!({}))),
            call(VmInfo, fails(NotCreated)),
            call(VmBoot, fails(NotCreated)),
            call(VmPause, fails(WrongState)),
            call(VmResume, fails(WrongState)),
            call(VmShutdown, fails(WrongState)),
            call(VmReboot, fails(NotCreated)),
            call(VmDelete, Expected::Done),
            call(VmCounters, fails(WrongState)),
            call(VmNmi, fails(WrongState)),
            call(VmPowerButton, fails(WrongState)),
            call_with(VmSnapshot, snapshot(), fails(WrongState)),
            call_with(VmRestore, restore(), fails(Rejected)),
            call_with(VmResize, resize(), fails(NotCreated)),
            call_with(VmResizeDisk, resize_disk(), fails(NotCreated))
                .before(V50, fails(not_supported())),
            call_with(VmResizeZone, resize_zone(), fails(NotCreated)),
            call_with(VmAddDevice, device(), fails(NotCreated)),
            call_with(VmAddDisk, disk(), fails(NotCreated)),
            call_with(VmAddFs, fs(), fails(NotCreated)),
            call_with(
                VmAddGenericVhostUser,
                generic_vhost_user(),
                fails(NotCreated),
            )
            .before(V52, fails(not_supported())),
            call_with(VmAddNet, net(), fails(NotCreated)),
            call_with(VmAddPmem, pmem(), fails(NotCreated)),
            call_with(VmAddUserDevice, user_device(), fails(NotCreated)),
            call_with(VmAddVdpa, vdpa(), fails(NotCreated)),
            call_with(VmAddVsock, vsock(), fails(NotCreated)),
            call_with(VmRemoveDevice, remove("root"), fails(NotCreated)),
            call_with(VmReceiveMigration, receive_migration(), fails(Rejected)),
            call_with(VmCoredump, coredump(), fails(not_supported())),
            call(VmInfo, fails(NotCreated)),
            call(VmmShutdown, Expected::Done),
        ],
    }
}

pub(super) fn migration() -> Scenario {
    Scenario {
        name: "no-vm-migration",
        about: "Sending a VM that isn't there: up to v52.0 this ends the VMM.",
        steps: vec![
            call(VmmPing, Expected::Fields(json!({}))),
            call_with(VmSendMigration, send_migration(), fails(WrongState))
                .before(V53, fails(VmmGone)),
        ],
    }
}
