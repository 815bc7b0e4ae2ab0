//! What is asked of a VMM, and what a client is expected to make of the answers, as data.
//!
//! One list serves four times: the cassettes are recorded by it, every `cargo test` replays them through the client,
//! it is held against a living VMM, and the probe plays it to compare an unknown one. The same kinds of error are
//! expected of every release, although their statuses differ; where a release really does something else, the step
//! says so (`before` of [`Step`]).

use serde_json::{Value, json};

use crate::api::Operation;
use crate::client::{ErrorKind, Release};

mod hot_plug;
mod illegal;
mod life_cycle;
mod limits;
mod malformed;
mod no_vm;
mod routes;

const V50: Release = Release::new(50, 0);
const V52: Release = Release::new(52, 0);
const V53: Release = Release::new(53, 0);

/// The name of the scenario that asks which paths are served.
pub(super) const ROUTES: &str = "routes";
/// The name of the scenario that asks how large a body may be.
pub(super) const LIMITS: &str = "limits";

/// A list of calls on a fresh VMM.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The cassette's file name, without its ending.
    pub name: &'static str,
    /// What the cassette's notes say.
    pub about: &'static str,
    /// What is asked, in order.
    pub steps: Vec<Step>,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is sent.
    pub ask: Ask,
    /// What comes of it.
    pub expected: Expected,
    /// What releases before the named ones make of it instead, oldest first.
    pub before: Vec<(Release, Expected)>,
    /// What the steps after it need, if they need that this one succeeds: they aren't played when it fails.
    pub opens: Option<&'static str>,
}

/// What is sent. `${RUN}` in a body is the folder of the run.
#[derive(Clone, Debug)]
pub enum Ask {
    /// An operation, with its body.
    Call(Operation, Option<String>),
    /// A request that no operation makes.
    Wire {
        /// The HTTP method.
        method: &'static str,
        /// The whole path.
        path: String,
        /// The body.
        body: Vec<u8>,
    },
}

/// What the crate's client makes of an answer.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Success without a body.
    Done,
    /// Success with at least these fields.
    Fields(Value),
    /// An error of this kind (of a kind with fields, any).
    Error(ErrorKind),
    /// Past the client: this status.
    Status(u16),
}

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    vec![
        no_vm::scenario(),
        no_vm::migration(),
        routes::scenario(),
        limits::scenario(),
        malformed::scenario(),
        illegal::created(),
        illegal::running(),
        illegal::paused(),
        hot_plug::scenario(),
        life_cycle::scenario(),
    ]
}

impl Step {
    fn new(ask: Ask, expected: Expected) -> Step {
        Step {
            ask,
            expected,
            before: Vec::new(),
            opens: None,
        }
    }

    /// The same step, of which releases before `release` make something else. Called for older ones first.
    fn before(mut self, release: Release, expected: Expected) -> Step {
        self.before.push((release, expected));
        self
    }

    /// The same step, without whose success the rest can't be reached.
    fn opens(self, what: &'static str) -> Step {
        Step {
            opens: Some(what),
            ..self
        }
    }

    /// What this release is expected to say.
    pub fn expected(&self, release: Release) -> &Expected {
        let older = self.before.iter().find(|(other, _)| release < *other);
        older.map_or(&self.expected, |(_, expected)| expected)
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
    Step::new(Ask::Call(operation, body), expected)
}

/// A request past the client.
fn wire(method: &'static str, path: &str, body: Vec<u8>, status: u16) -> Step {
    let path = path.to_owned();
    Step::new(Ask::Wire { method, path, body }, Expected::Status(status))
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
