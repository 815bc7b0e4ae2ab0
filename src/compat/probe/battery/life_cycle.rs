//! The scenario of a VM's life: create, boot, snapshot, restore and shutdown.

use super::bodies::*;
use super::*;
use ErrorKind::{NotCreated, Rejected};
use Operation::*;

pub(super) fn scenario() -> Scenario {
    let state = |state: &str| Expected::Fields(json!({ "state": state }));
    Scenario {
        name: "life-cycle",
        about: "A VM with the idle kernel: boot, snapshot, revert to it twice, shut down.",
        steps: vec![
            call(VmmPing, Expected::Fields(json!({}))),
            call_with(VmCreate, idle_vm(), Expected::Done),
            call(VmInfo, state("Created")),
            call(VmBoot, Expected::Done).opens("a running VM"),
            call(VmInfo, state("Running")),
            call(VmCounters, Expected::Fields(json!({ "root": {} }))),
            call(VmPause, Expected::Done),
            call(VmInfo, state("Paused")),
            call_with(VmSnapshot, snapshot(), Expected::Done).opens("snapshot and restore"),
            // A snapshot does not overwrite files.
            call_with(VmSnapshot, snapshot(), fails(Rejected)),
            call(VmResume, Expected::Done),
            call(VmInfo, state("Running")),
            call(VmDelete, Expected::Done),
            call(VmInfo, fails(NotCreated)),
            call_with(VmRestore, restore(), Expected::Done),
            call(VmInfo, state("Paused")),
            call(VmResume, Expected::Done),
            call(VmInfo, state("Running")),
            call(VmDelete, Expected::Done),
            // v51.2 ignores `resume`. The value `false` asks for what every release does.
            call_with(
                VmRestore,
                json!({ "source_url": "file://${RUN}/snapshot", "resume": false }),
                Expected::Done,
            ),
            call(VmResume, Expected::Done),
            call(VmReboot, Expected::Done),
            call(VmInfo, state("Running")),
            call(VmShutdown, Expected::Done),
            call(VmInfo, state("Created")),
            call(VmDelete, Expected::Done),
            call(VmDelete, Expected::Done),
            call(VmmShutdown, Expected::Done),
        ],
    }
}
