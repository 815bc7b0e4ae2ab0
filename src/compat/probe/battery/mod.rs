//! The scenarios of the probe, as data: calls, and what the client is expected to make of the answers.
//!
//! The same list has four uses. The [cassettes](crate::replay::Cassette) of this crate are recorded by it, `cargo test`
//! replays these cassettes through the client, a test plays it on a live VMM, and the probe plays it on an unknown VMM.
//! Every release is expected to give the same kinds of errors, although their statuses differ. If a release behaves
//! differently, the step has another expectation for it (`before` of [`Step`]).
//!
//! The module is public for the tests of this crate only.

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

/// The name of the scenario that finds the paths that are served.
pub(super) const ROUTES: &str = "routes";
/// The name of the scenario that finds the maximum size of a body.
pub(super) const LIMITS: &str = "limits";

/// A list of calls to a VMM that was just started.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The name of the cassette's file, without its extension.
    pub name: &'static str,
    /// The notes of the cassette.
    pub about: &'static str,
    /// The calls, in order.
    pub steps: Vec<Step>,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Step {
    /// The request.
    pub ask: Ask,
    /// The expected outcome.
    pub expected: Expected,
    /// The expected outcome on releases before each of these, oldest first.
    pub before: Vec<(Release, Expected)>,
    /// The state that the following steps need and that this step leads to. If this step fails, the following steps
    /// aren't played.
    pub opens: Option<&'static str>,
}

/// A request. `${RUN}` in a body stands for the folder of the run.
#[derive(Clone, Debug)]
pub enum Ask {
    /// An operation, with its body if it has one.
    Call(Operation, Option<String>),
    /// A request that is not an operation of the API.
    Wire {
        /// The HTTP method.
        method: &'static str,
        /// The whole path, with the base path.
        path: String,
        /// The body.
        body: Vec<u8>,
    },
}

/// The expected outcome of a request.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Success without a body.
    Done,
    /// Success with a body that has at least these fields.
    Fields(Value),
    /// An error of this kind. Fields of the kind are not compared.
    Error(ErrorKind),
    /// This status, for a request that bypasses the client.
    Status(u16),
}

/// Returns every scenario.
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

    /// Sets another expectation for releases before `release`. It must be called for older releases first.
    fn before(mut self, release: Release, expected: Expected) -> Step {
        self.before.push((release, expected));
        self
    }

    /// Marks the step as one that leads to the state `what`, which the following steps need.
    fn opens(self, what: &'static str) -> Step {
        Step {
            opens: Some(what),
            ..self
        }
    }

    /// Returns the expected outcome on `release`.
    pub fn expected(&self, release: Release) -> &Expected {
        let older = self.before.iter().find(|(other, _)| release < *other);
        older.map_or(&self.expected, |(_, expected)| expected)
    }
}

/// Creates a call without a body.
fn call(operation: Operation, expected: Expected) -> Step {
    send(operation, None, expected)
}

/// Creates a call with a JSON body.
fn call_with(operation: Operation, body: Value, expected: Expected) -> Step {
    send(operation, Some(body.to_string()), expected)
}

fn send(operation: Operation, body: Option<String>, expected: Expected) -> Step {
    Step::new(Ask::Call(operation, body), expected)
}

/// Creates a request that bypasses the client.
fn wire(method: &'static str, path: &str, body: Vec<u8>, status: u16) -> Step {
    let path = path.to_owned();
    Step::new(Ask::Wire { method, path, body }, Expected::Status(status))
}

fn fails(kind: ErrorKind) -> Expected {
    Expected::Error(kind)
}

/// The error for an operation that no release has in its default build.
fn not_supported() -> ErrorKind {
    ErrorKind::NotSupported {
        what: String::new(),
        since: None,
        until: None,
        server: None,
    }
}

/// The configuration of a VM that boots the idle kernel: one CPU, 64 MiB of memory, a disk and a vsock device.
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

/// The bodies of calls that are made in several states.
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

    /// No release accepts this address. A valid address would block the whole API until the other side connects.
    pub(super) fn receive_migration() -> Value {
        json!({ "receiver_url": "nowhere" })
    }

    pub(super) fn send_migration() -> Value {
        json!({ "destination_url": "unix:${RUN}/nobody.sock" })
    }
}
