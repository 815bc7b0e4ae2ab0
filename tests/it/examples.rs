//! Tests of the programs of `examples/` that run on recordings. Those of `agent.rs` are in
//! [`sandbox::agent`](crate::sandbox).

use std::fs;
use std::io::Write;

use chv_sandbox::client::{Client, EventMonitor};
use chv_sandbox::compat::probe::idle_kernel;
use chv_sandbox::sandbox::{Sandbox, ToolOutcome};

use crate::client::methods::VM_INFO;
use crate::client::server::{NO_CONTENT, Server, accept, answer, ping, read_request, with_body};
use crate::real;

#[path = "../../examples/blocking.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a program")]
mod blocking;
#[path = "../../examples/client.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a program")]
mod client;
#[path = "../../examples/files.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a program")]
mod files;
/// This program contains its own tests.
#[path = "../../examples/replay_test.rs"]
#[expect(dead_code, reason = "it is a program")]
mod replay_test;
#[path = "../../examples/stream.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a program")]
mod stream;

#[tokio::test]
async fn the_client_drives_a_vmm() {
    let (reader, writer) = std::io::pipe().unwrap();
    let server = Server::run(|listener| {
        let (mut stream, mut monitor) = (accept(listener), writer);
        for (path, reply) in [
            ("vmm.ping", ping("53.0.0")),
            ("vmm.ping", ping("53.0.0")),
            ("vm.create", NO_CONTENT.to_owned()),
            ("vm.info", with_body(200, VM_INFO)),
            ("vm.delete", NO_CONTENT.to_owned()),
        ] {
            let request = answer(&mut stream, &reply);
            assert!(request.contains(path), "{request}");
        }
        read_request(&mut stream);
        let event = r#"{"timestamp":{"secs":1,"nanos":0},"source":"vmm","event":"shutdown"}"#;
        writeln!(monitor, "{event}\n").unwrap();
    });
    let monitor = EventMonitor::from_file(reader).unwrap();
    let driver = Client::new(server.socket()).unwrap();
    assert_eq!(client::drive(&driver, None).await.unwrap(), ["Running"]);
    assert_eq!(client::watch(monitor).await, ["shutdown"]);
    server.finish();
}

#[tokio::test]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn the_client_drives_a_real_vmm() {
    let Some(binary) = real::vmm_binary() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let kernel = folder.path().join("kernel");
    idle_kernel::write(&kernel).unwrap();
    let (states, events) = client::run(binary.as_os_str(), kernel.to_str())
        .await
        .unwrap();
    assert_eq!(states, ["Created", "Running"]);
    for event in ["starting", "booting", "booted"] {
        assert!(events.iter().any(|name| name == event), "{events:?}");
    }
}

#[tokio::test]
async fn streams() {
    let replay = stream::rehearsal().await.unwrap();
    let sandbox = replay.sandbox();
    sandbox.boot().await.unwrap();
    let said = stream::converse(&*sandbox, &[1, 20, 300]).await.unwrap();
    assert_eq!(said, ["1", "21", "321"]);
    sandbox.reset().await.unwrap();
    let outcome = stream::enough(&*sandbox, 1000).await.unwrap();
    assert_eq!(outcome, ToolOutcome::Cancelled);
    sandbox.reset().await.unwrap();
    replay.finish().await.unwrap();
}

#[tokio::test]
async fn files_in_and_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("input")).unwrap();
    fs::create_dir(path("guest")).unwrap();
    fs::write(path("input").join("poem"), "one\ntwo\n").unwrap();
    let replay = files::rehearsal(&path("guest")).await.unwrap();
    let sandbox = replay.sandbox();
    sandbox.boot().await.unwrap();
    let (input, output) = (path("input"), path("output"));
    files::count_lines(&*sandbox, &input, &output)
        .await
        .unwrap();
    let lines = fs::read_to_string(output.join("poem")).unwrap();
    assert_eq!(lines, "2\n");
    replay.finish().await.unwrap();
}

#[test]
fn blocking_calls() {
    let said = blocking::on_recordings(&["one", "two"]).unwrap();
    assert_eq!(said, ["one", "two"]);
}
