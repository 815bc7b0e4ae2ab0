//! The scenario with malformed bodies and requests, and with unknown fields, which the server ignores.

use super::*;
use ErrorKind::{NotCreated, Rejected};
use Operation::*;

/// The size of a body that every release refuses, in bytes.
const TOO_LARGE: usize = 60_000;

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "bad-bodies",
        about: "Malformed bodies and requests, and unknown fields, which are taken and ignored.",
        steps: vec![
            text(VmCreate, "{ \"cpus\":", Rejected),
            text(VmCreate, "not json", Rejected),
            text(VmCreate, "null", Rejected),
            text(VmCreate, "[]", Rejected),
            text(VmCreate, r#"{"memory":{"size":"64M"}}"#, Rejected),
            text(VmCreate, r#"{"memory":{"size":-1}}"#, Rejected),
            text(VmCreate, r#"{"cpus":{"boot_vcpus":1}}"#, Rejected),
            call(VmCreate, fails(Rejected)),
            text(VmBoot, "{}", Rejected),
            text(VmDelete, "{}", Rejected),
            call(VmAddDisk, fails(Rejected)),
            call(VmInfo, fails(NotCreated)),
            wire("PUT", "/api/v1/vm.nothing", Vec::new(), 404),
            wire("PUT", "/api/v1/vm.boot/", Vec::new(), 404),
            wire("GET", "/api/v1/vmm.ping?x=1", Vec::new(), 404),
            wire("GET", "/", Vec::new(), 404),
            wire("GET", "/api/v1/vm.create", Vec::new(), 400),
            wire("PUT", "/api/v1/vm.info", Vec::new(), 400),
            wire("PATCH", "/api/v1/vm.boot", Vec::new(), 400),
            // The `Content-Type` of the answer is JSON, but a string in its body has an unescaped newline.
            wire("DELETE", "/api/v1/vm.boot", Vec::new(), 400),
            wire(
                "PUT",
                "/api/v1/vm.create",
                " ".repeat(TOO_LARGE).into_bytes(),
                400,
            ),
            call_with(
                VmCreate,
                json!({ "no_such_field": 1, "memory": { "size": 64 << 20, "nor_this": 2 } }),
                Expected::Done,
            ),
            call(
                VmInfo,
                Expected::Fields(
                    json!({ "config": { "memory": { "size": 64 << 20 } }, "state": "Created" }),
                ),
            ),
            call_with(
                VmAddDisk,
                json!({ "path": "${RUN}/disk.img", "rate_limiter_config": { "no_such_field": 1 } }),
                fails(Rejected),
            ),
            call(VmBoot, fails(Rejected)),
            call(VmDelete, Expected::Done),
            call(VmmShutdown, Expected::Done),
        ],
    }
}

fn text(operation: Operation, body: &str, kind: ErrorKind) -> Step {
    send(operation, Some(body.to_owned()), fails(kind))
}
