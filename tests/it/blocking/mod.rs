//! Tests of [`blocking`](chv_sandbox::blocking): sandboxes and pools driven from plain threads, without an async
//! runtime.

use std::sync::Arc;

use chv_sandbox::blocking::{Pool, Sandbox};
use chv_sandbox::sandbox::{
    Error, Event, PoolConfig, SandboxConfig, SandboxState, StubSandbox, ToolInvocation,
    TransferOptions,
};
use serde_json::json;

#[test]
fn a_sandbox_lives_from_any_thread() {
    let sandbox = Sandbox::of(Arc::new(StubSandbox::default())).unwrap();
    let events = sandbox.subscribe();
    let listener = std::thread::spawn(move || {
        let states = events.filter_map(|event| match event {
            Event::State(state) => Some(state.to_string()),
            _ => None,
        });
        states.take(4).collect::<Vec<_>>()
    });
    sandbox.boot().unwrap();
    let hello = ToolInvocation::new("echo", json!({ "message": "hello" }));
    let other = sandbox.clone();
    let done = std::thread::spawn(move || other.run_once(hello))
        .join()
        .unwrap();
    assert_eq!(done.unwrap().execution.stdout.text(), "hello\n");
    sandbox.shutdown();
    assert!(matches!(sandbox.state(), SandboxState::NotBooted));
    let states = listener.join().unwrap();
    assert_eq!(states, ["ready", "resetting", "ready", "not_booted"]);
    let refused = sandbox.execute_tool(ToolInvocation::new("echo", json!({})));
    assert!(
        matches!(refused, Err(Error::NotReady { .. })),
        "{refused:?}"
    );
}

#[test]
fn files_go_in_and_come_out() {
    let sandbox = Sandbox::of(Arc::new(StubSandbox::default())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (tree, got) = (folder.path().join("tree"), folder.path().join("got"));
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("a"), "a").unwrap();
    sandbox.boot().unwrap();
    let options = TransferOptions::default();
    let pushed = sandbox.push(&tree, "in", &options).unwrap();
    let pulled = sandbox.pull("in", &got, &options).unwrap();
    assert_eq!(pulled.totals, pushed.totals);
    assert_eq!(std::fs::read(got.join("a")).unwrap(), b"a");
    sandbox.shutdown();
}

#[test]
fn a_pool_that_cannot_be_opened_says_why() {
    let missing = SandboxConfig::golden("/no/such/golden");
    let error = Pool::open(PoolConfig::new(missing.clone()).size(0)).unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error:?}");
    let error = Pool::open(PoolConfig::new(missing)).unwrap_err();
    // On a host without KVM, that is the error instead.
    let is_it = matches!(error, Error::BootFailed(_) | Error::NotAvailable(_));
    assert!(is_it, "{error:?}");
}
