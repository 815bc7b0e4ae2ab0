//! Tests of the programs of `examples/` that run on recordings. Those of `agent.rs` are in
//! [`sandbox::agent`](crate::sandbox).

use std::fs;

use chv_sandbox::sandbox::{Sandbox, ToolOutcome};

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
