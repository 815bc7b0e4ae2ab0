//! What is asked of a VMM to make the cassettes, and what is expected of it, as data.
//!
//! One list serves three times: it drives the recording, it is replayed by every `cargo test`, and it is held
//! against a living VMM. The same kinds of error are expected of every release, although their statuses differ;
//! where a release really does something else, the step says so ([`Step::before`]).

use chv_sandbox::api::Operation;
use chv_sandbox::client::{ErrorKind, Release};
use serde_json::{Value, json};

mod expected;
mod hot_plug;
mod illegal;
mod life_cycle;
mod malformed;
mod no_vm;

pub(crate) use expected::{Expected, same_kind};

const V52: Release = Release::new(52, 0);
const V53: Release = Release::new(53, 0);

/// A list of calls on a fresh VMM.
pub(crate) struct Scenario {
    /// The cassette's file name, without its ending.
    pub(crate) name: &'static str,
    /// What the cassette's notes say.
    pub(crate) about: &'static str,
    /// What is asked, in order.
    pub(crate) steps: Vec<Step>,
}

/// One call.
pub(crate) struct Step {
    pub(crate) request: Request,
    pub(crate) expected: Expected,
    /// What releases before this one do instead.
    pub(crate) before: Option<(Release, Expected)>,
}

/// What is sent. `${RUN}` in a body is the folder of the run.
pub(crate) enum Request {
    /// Through the client.
    Call(Operation, Option<String>),
    /// Past the client: what it wouldn't send.
    Wire {
        method: &'static str,
        path: &'static str,
        body: Vec<u8>,
    },
}

/// Every scenario.
pub(crate) fn all() -> Vec<Scenario> {
    vec![
        no_vm::scenario(),
        no_vm::migration(),
        illegal::created(),
        illegal::running(),
        illegal::paused(),
        hot_plug::scenario(),
        malformed::scenario(),
        life_cycle::scenario(),
    ]
}

impl Step {
    /// The same step, of which releases before `release` make something else.
    fn before(self, release: Release, expected: Expected) -> Step {
        Step {
            before: Some((release, expected)),
            ..self
        }
    }

    /// What this release is expected to say.
    pub(crate) fn expected(&self, release: Release) -> &Expected {
        match &self.before {
            Some((other, expected)) if release < *other => expected,
            _ => &self.expected,
        }
    }
}

/// A call without a body.
fn call(operation: Operation, expected: Expected) -> Step {
    send(operation, None, expected)
}

/// A call with a JSON body.
fn call_with(operation: Operation, body: Value, expected: Expected) -> Step {
    send(operation, Some(body.to_string()), expected)
}

fn send(operation: Operation, body: Option<String>, expected: Expected) -> Step {
    Step {
        request: Request::Call(operation, body),
        expected,
        before: None,
    }
}

fn fails(kind: ErrorKind) -> Expected {
    Expected::Error(kind)
}

/// An operation that a default build of any release doesn't have.
fn not_supported() -> ErrorKind {
    ErrorKind::NotSupported {
        what: String::new(),
        since: None,
        until: None,
        server: None,
    }
}

/// A VM that boots the idle kernel: one CPU, 64 MiB, a disk and a vsock device.
fn idle_vm() -> Value {
    json!({
        "cpus": { "boot_vcpus": 1, "max_vcpus": 1 },
        "memory": { "size": 64 << 20 },
        "payload": { "kernel": "${RUN}/kernel" },
        "disks": [{ "id": "root", "path": "${RUN}/disk.img", "image_type": "Raw" }],
        "vsock": { "cid": 3, "socket": "${RUN}/vsock.sock" },
        "console": { "mode": "Off" },
        "serial": { "mode": "Null" }
    })
}

/// The bodies of a step that is tried in several states.
mod bodies {
    use super::*;

    pub(super) fn disk() -> Value {
        json!({ "id": "extra", "path": "${RUN}/extra.img", "image_type": "Raw" })
    }

    pub(super) fn pmem() -> Value {
        json!({ "id": "pmem", "file": "${RUN}/pmem.img", "discard_writes": true })
    }

    pub(super) fn vsock() -> Value {
        json!({ "id": "second", "cid": 4, "socket": "${RUN}/second.sock" })
    }

    pub(super) fn fs() -> Value {
        json!({ "tag": "share", "socket": "${RUN}/nobody.sock", "num_queues": 1, "queue_size": 128 })
    }

    pub(super) fn net() -> Value {
        json!({ "id": "net", "mac": "02:00:00:00:00:01", "vhost_user": true, "vhost_socket": "${RUN}/nobody.sock" })
    }

    pub(super) fn vdpa() -> Value {
        json!({ "path": "${RUN}/no-vdpa", "num_queues": 1 })
    }

    pub(super) fn device() -> Value {
        json!({ "path": "${RUN}/no-device" })
    }

    pub(super) fn user_device() -> Value {
        json!({ "socket": "${RUN}/nobody.sock" })
    }

    pub(super) fn generic_vhost_user() -> Value {
        json!({ "socket": "${RUN}/nobody.sock", "queue_sizes": [128], "device_type": 1, "virtio_id": 1 })
    }

    pub(super) fn resize() -> Value {
        json!({ "desired_ram": 64 << 20 })
    }

    pub(super) fn resize_disk() -> Value {
        json!({ "id": "root", "desired_size": 2 << 20 })
    }

    pub(super) fn resize_zone() -> Value {
        json!({ "id": "zone", "desired_ram": 64 << 20 })
    }

    pub(super) fn remove(id: &str) -> Value {
        json!({ "id": id })
    }

    pub(super) fn snapshot() -> Value {
        json!({ "destination_url": "file://${RUN}/snapshot" })
    }

    pub(super) fn restore() -> Value {
        json!({ "source_url": "file://${RUN}/snapshot" })
    }

    pub(super) fn coredump() -> Value {
        json!({ "destination_url": "file://${RUN}/core" })
    }

    /// An address that no release takes: a good one would wait for the other side, and the whole API with it.
    pub(super) fn receive_migration() -> Value {
        json!({ "receiver_url": "nowhere" })
    }

    pub(super) fn send_migration() -> Value {
        json!({ "destination_url": "unix:${RUN}/nobody.sock" })
    }
}
