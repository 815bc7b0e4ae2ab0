//! The scenarios with calls that are illegal in the state of the VM.

use super::bodies::*;
use super::*;
use ErrorKind::{AlreadyCreated, NotCreated, Rejected, WrongState};
use Operation::*;

pub(super) fn created() -> Scenario {
    Scenario {
        name: "illegal-created",
        about: "What a VM that is created and not booted refuses.",
        steps: vec![
            call_with(VmCreate, idle_vm(), Expected::Done),
            call(VmInfo, Expected::Fields(json!({ "state": "Created" }))),
            call_with(VmCreate, idle_vm(), fails(AlreadyCreated)),
            call(VmPause, fails(WrongState)),
            call(VmResume, fails(WrongState)),
            call(VmShutdown, fails(WrongState)),
            call(VmReboot, fails(NotCreated)),
            call(VmCounters, fails(WrongState)),
            call(VmNmi, fails(WrongState)),
            call(VmPowerButton, fails(WrongState)),
            call_with(VmSnapshot, snapshot(), fails(WrongState)),
            call_with(VmRestore, restore(), fails(AlreadyCreated)),
            call_with(VmResizeDisk, resize_disk(), fails(Rejected))
                .before(V50, fails(not_supported())),
            call_with(VmResizeZone, resize_zone(), fails(Rejected)),
            call_with(VmRemoveDevice, remove("nothing"), fails(Rejected)),
            call_with(VmSendMigration, send_migration(), fails(WrongState)),
            call_with(VmReceiveMigration, receive_migration(), fails(Rejected)),
            call_with(VmCoredump, coredump(), fails(not_supported())),
            call(VmInfo, Expected::Fields(json!({ "state": "Created" }))),
            call(VmDelete, Expected::Done),
            call(VmmShutdown, Expected::Done),
        ],
    }
}

pub(super) fn running() -> Scenario {
    Scenario {
        name: "illegal-running",
        about: "What a running VM refuses.",
        steps: vec![
            call_with(VmCreate, idle_vm(), Expected::Done),
            call(VmBoot, Expected::Done).opens("a running VM"),
            call(VmInfo, Expected::Fields(json!({ "state": "Running" }))),
            call_with(VmCreate, idle_vm(), fails(AlreadyCreated)),
            call(VmBoot, fails(WrongState)),
            call(VmResume, fails(WrongState)),
            call_with(VmSnapshot, snapshot(), fails(WrongState)),
            call_with(VmRestore, restore(), fails(AlreadyCreated)),
            call_with(VmResizeZone, resize_zone(), fails(Rejected)),
            call_with(VmRemoveDevice, remove("nothing"), fails(Rejected)),
            call_with(
                VmSendMigration,
                json!({ "destination_url": "nowhere" }),
                fails(Rejected),
            ),
            call_with(
                VmReceiveMigration,
                receive_migration(),
                fails(AlreadyCreated),
            )
            .before(V53, fails(Rejected)),
            call_with(VmCoredump, coredump(), fails(not_supported())),
            call(VmNmi, Expected::Done),
            call(VmPowerButton, Expected::Done),
            call(VmInfo, Expected::Fields(json!({ "state": "Running" }))),
            call(VmDelete, Expected::Done),
            call(VmInfo, fails(NotCreated)),
            call(VmmShutdown, Expected::Done),
        ],
    }
}

pub(super) fn paused() -> Scenario {
    Scenario {
        name: "illegal-paused",
        about: "What a paused VM refuses, and what it allows although it is paused.",
        steps: vec![
            call_with(VmCreate, idle_vm(), Expected::Done),
            call(VmBoot, Expected::Done).opens("a running VM"),
            call(VmPause, Expected::Done),
            call(VmInfo, Expected::Fields(json!({ "state": "Paused" }))),
            call_with(VmCreate, idle_vm(), fails(AlreadyCreated)),
            // Up to v52.0 `vm.boot` resumes a paused VM.
            call(VmBoot, fails(WrongState)).before(V53, Expected::Done),
            call(VmPause, fails(WrongState)).before(V53, Expected::Done),
            call_with(VmRestore, restore(), fails(AlreadyCreated)),
            call_with(VmResizeZone, resize_zone(), fails(Rejected)),
            call_with(VmRemoveDevice, remove("nothing"), fails(Rejected)),
            call_with(
                VmReceiveMigration,
                receive_migration(),
                fails(AlreadyCreated),
            )
            .before(V53, fails(Rejected)),
            call(VmNmi, Expected::Done),
            call(VmPowerButton, Expected::Done),
            call_with(VmResize, resize(), Expected::Done),
            call_with(VmResizeDisk, resize_disk(), Expected::Done)
                .before(V50, fails(not_supported())),
            call_with(
                VmAddDisk,
                disk(),
                Expected::Fields(json!({ "id": "extra" })),
            ),
            call_with(VmRemoveDevice, remove("extra"), Expected::Done),
            call(VmCounters, Expected::Fields(json!({}))),
            call(VmInfo, Expected::Fields(json!({ "state": "Paused" }))),
            call(VmResume, Expected::Done),
            call(VmInfo, Expected::Fields(json!({ "state": "Running" }))),
            call(VmDelete, Expected::Done),
            call(VmmShutdown, Expected::Done),
        ],
    }
}
