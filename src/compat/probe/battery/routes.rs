//! The scenario that finds the paths that are served.

use super::*;

/// Every path of every contract, and some paths that no release ever had.
///
/// A request with a method that no endpoint has is answered with status 400 if the path is served, and with 404 if it
/// is not. This is so in every state, and the request has no effect.
const PATHS: &[(&str, Served)] = &[
    ("vm.add-device", Always),
    ("vm.add-disk", Always),
    ("vm.add-fs", Always),
    ("vm.add-generic-vhost-user", Since(V52)),
    ("vm.add-net", Always),
    ("vm.add-pmem", Always),
    ("vm.add-user-device", Always),
    ("vm.add-vdpa", Always),
    ("vm.add-vsock", Always),
    ("vm.boot", Always),
    // Only builds for debugging the guest serve it.
    ("vm.coredump", Never),
    ("vm.counters", Always),
    ("vm.create", Always),
    ("vm.delete", Always),
    ("vm.info", Always),
    ("vm.nmi", Always),
    ("vm.pause", Always),
    ("vm.power-button", Always),
    ("vm.reboot", Always),
    ("vm.receive-migration", Always),
    ("vm.remove-device", Always),
    ("vm.resize", Always),
    ("vm.resize-disk", Since(V50)),
    ("vm.resize-zone", Always),
    ("vm.restore", Always),
    ("vm.resume", Always),
    ("vm.send-migration", Always),
    ("vm.shutdown", Always),
    ("vm.snapshot", Always),
    ("vmm.ping", Always),
    ("vmm.shutdown", Always),
    // The documents of v40 to v52 have it, but no server does.
    ("vmm.nmi", Never),
    ("vm.nothing", Never),
    ("vmm.info", Never),
    ("vm.clone", Never),
];

#[derive(Clone, Copy)]
enum Served {
    Always,
    Since(Release),
    Never,
}
use Served::{Always, Never, Since};

pub(super) fn scenario() -> Scenario {
    let mut steps = vec![call(Operation::VmmPing, Expected::Fields(json!({})))];
    for (name, served) in PATHS {
        let path = format!("/api/v1/{name}");
        let step = |status| wire("PATCH", &path, Vec::new(), status);
        steps.push(match *served {
            Always => step(400),
            Never => step(404),
            Since(release) => step(400).before(release, Expected::Status(404)),
        });
    }
    steps.push(call(Operation::VmmShutdown, Expected::Done));
    Scenario {
        name: super::ROUTES,
        about: "Which paths are served: a method that none takes is answered 400 where there is an endpoint.",
        steps,
    }
}
