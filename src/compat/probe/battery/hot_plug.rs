//! The scenario that adds and removes devices, before and after boot.

use super::bodies::*;
use super::*;
use ErrorKind::Rejected;
use Operation::*;

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "hot-plug",
        about: "Adding, resizing and removing on a created VM (answered 204) and on a running one (200 and the place).",
        steps: vec![
            call_with(VmCreate, idle_vm(), Expected::Done),
            call_with(VmAddDisk, disk(), Expected::Done),
            call_with(VmAddPmem, pmem(), Expected::Done),
            call_with(VmRemoveDevice, remove("extra"), Expected::Done),
            call_with(VmRemoveDevice, remove("pmem"), Expected::Done),
            call_with(VmRemoveDevice, remove("pmem"), fails(Rejected)),
            call_with(VmResize, resize(), Expected::Done),
            call(VmBoot, Expected::Done).opens("a running VM"),
            call_with(
                VmAddDisk,
                disk(),
                Expected::Fields(json!({ "id": "extra" })),
            ),
            call_with(VmAddDisk, disk(), fails(Rejected)),
            call_with(VmAddPmem, pmem(), Expected::Fields(json!({ "id": "pmem" }))),
            call_with(VmAddVsock, vsock(), fails(Rejected)),
            call_with(VmAddDevice, device(), fails(Rejected)),
            call_with(VmAddVdpa, vdpa(), fails(Rejected)),
            call_with(VmResizeDisk, resize_disk(), Expected::Done)
                .before(V50, fails(not_supported())),
            call(VmCounters, Expected::Fields(json!({ "extra": {} }))),
            call_with(VmRemoveDevice, remove("extra"), Expected::Done),
            // The idle kernel never releases the device. Up to v52.0 a second removal is no error.
            call_with(VmRemoveDevice, remove("extra"), fails(Rejected)).before(V53, Expected::Done),
            call_with(VmRemoveDevice, remove("nothing"), fails(Rejected)),
            call(VmInfo, Expected::Fields(json!({ "state": "Running" }))),
            call(VmDelete, Expected::Done),
            call(VmmShutdown, Expected::Done),
        ],
    }
}
