//! Another process opens a golden file for writing while the VM reads it: this is reported at once, and no tool runs
//! until a reset has compared the file again.

use std::fs::OpenOptions;

use chv_sandbox::sandbox::{ChvSandbox, Error, Event, Sandbox, WireState};

use super::spares::Cast;
use super::{Scene, assert_echoed, assert_halted, echo, flip_a_bit, told};

/// Waits for the event, and checks that the sandbox takes no tool.
async fn assert_lost(sandbox: &ChvSandbox, events: &mut chv_sandbox::broadcast::Receiver<Event>) {
    let lost = |event: &Event| matches!(event, Event::GoldenChanged).then_some(());
    told(events, lost).await;
    assert_eq!(sandbox.state().wire(), WireState::Ready);
    let error = echo(sandbox, "refused").await.unwrap_err();
    assert!(matches!(error, Error::NeedsReset { .. }), "{error}");
}

/// Opens a file for writing and leaves it unchanged, which the sandbox can't know.
fn open_for_writing(scene: &Scene, name: &str) {
    let opened = OpenOptions::new().append(true).open(scene.path(name));
    drop(opened.unwrap());
}

#[tokio::test]
async fn a_root_that_was_opened_for_writing_needs_a_reset_and_that_is_enough() {
    let (scene, sandbox) = Scene::booted().await;
    let mut events = sandbox.subscribe();
    for _ in 0..2 {
        open_for_writing(&scene, "root.img");
        assert_lost(&sandbox, &mut events).await;
        assert!(sandbox.reset().await.unwrap().is_verified());
        assert_echoed(echo(&sandbox, "again").await, "again");
    }
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_root_that_was_changed_needs_a_reset_and_that_halts() {
    let (scene, sandbox) = Scene::booted().await;
    let mut events = sandbox.subscribe();
    flip_a_bit(&scene.path("root.img"));
    assert_lost(&sandbox, &mut events).await;
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE");
    assert_halted(&sandbox).await;
}

/// While a process has the root open for writing, no lease can be taken on it, and timestamps are not trusted.
#[tokio::test]
async fn a_root_on_which_there_is_no_lease_is_digested_at_each_reset() {
    let scene = Scene::minted().await;
    let writer = OpenOptions::new()
        .read(true)
        .write(true)
        .open(scene.path("root.img"));
    let writer = writer.unwrap();
    let sandbox = scene.sandbox();
    sandbox.boot().await.unwrap();
    assert!(sandbox.reset().await.unwrap().is_verified());
    let modified = writer.metadata().unwrap().modified().unwrap();
    flip_a_bit(&scene.path("root.img"));
    writer.set_modified(modified).unwrap();
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE");
    assert_halted(&sandbox).await;
}

#[tokio::test]
async fn a_spare_that_waited_meanwhile_serves_and_is_watched_from_then_on() {
    let (mut cast, _) = Cast::waiting().await;
    for _ in 0..2 {
        open_for_writing(&cast.scene, "root.img");
        assert_lost(&cast.sandbox, &mut cast.events).await;
        let reset = cast.sandbox.reset().await.unwrap();
        assert!(reset.is_verified());
        assert_echoed(echo(&cast.sandbox, "again").await, "again");
        cast.spare_is_ready().await;
    }
    cast.leaves_nothing().await;
}
