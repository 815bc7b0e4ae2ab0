//! A VMM that gives no answer: a reset waits for it only up to its limit, and no guest goes on running in it.

use std::time::Duration;

use chv_sandbox::sandbox::{
    ChvSandbox, Event, Sandbox, SandboxState, Strategy, VmmUsed, WireState,
};

use super::script::Act;
use super::stage::Stage;
use super::{Scene, assert_echoed, chain, echo, told};

/// A sandbox with a VMM of its own and short limits on that VMM's calls.
async fn booted(strategy: Strategy) -> (Scene, Stage, ChvSandbox) {
    let mut scene = Scene::minted().await;
    scene.limits.vmm_lifecycle = Duration::from_millis(500);
    scene.limits.vmm_transfer = Duration::from_millis(500);
    let stage = scene.stage();
    let sandbox = stage.sandbox(scene.config_of(scene.golden().strategy(strategy).spares(0)));
    sandbox.boot().await.unwrap();
    (scene, stage, sandbox)
}

async fn reset_by(sandbox: &ChvSandbox, expected: VmmUsed) {
    let reset = sandbox.reset().await.unwrap();
    assert!(reset.is_verified());
    assert_eq!(reset.outcome().report.vmm, Some(expected));
    assert_echoed(echo(sandbox, "after").await, "after");
}

#[tokio::test]
async fn a_reset_in_place_kills_it_and_goes_on_with_another() {
    for operation in ["vm.delete", "vm.restore", "vm.resume"] {
        let (scene, stage, sandbox) = booted(Strategy::InPlace).await;
        let mut events = sandbox.subscribe();
        let silent = stage.last();
        scene.vmm.on(operation, 1, Act::Hang);
        reset_by(&sandbox, VmmUsed::New).await;
        assert!(!silent.runs(), "{operation}");
        let error = told(&mut events, |event| match event {
            Event::VmmReplaced(error) => Some(chain(error)),
            _ => None,
        });
        let error = error.await;
        assert!(error.contains(operation), "{error}");
        // The sandbox killed this VMM itself, so its end does not change the sandbox's state.
        assert_eq!(sandbox.state().wire(), WireState::Ready);
        reset_by(&sandbox, VmmUsed::Reused).await;
        assert_eq!(stage.count(), 2);
        sandbox.shutdown().await;
        stage.assert_empty();
    }
}

#[tokio::test]
async fn where_no_other_can_be_had_the_next_reset_tries_again() {
    let (scene, stage, sandbox) = booted(Strategy::InPlace).await;
    let silent = stage.last();
    scene.vmm.on("vm.delete", 1, Act::Hang);
    scene.vmm.on("vm.restore", 1, Act::Refuse);
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_FAILED");
    assert!(chain(&error).contains("vm.restore"), "{}", chain(&error));
    assert!(!silent.runs(), "no guest goes on");
    assert_eq!(sandbox.state().wire(), WireState::Failed);
    reset_by(&sandbox, VmmUsed::New).await;
    reset_by(&sandbox, VmmUsed::Reused).await;
    sandbox.shutdown().await;
    stage.assert_empty();
}

#[tokio::test]
async fn where_no_other_can_be_had_no_guest_that_was_to_be_reverted_runs_on() {
    for operation in ["vm.restore", "vm.resume"] {
        let (scene, stage, sandbox) = booted(Strategy::Fresh).await;
        let served = stage.serving();
        scene.vmm.on(operation, 1, Act::Refuse);
        let error = sandbox.reset().await.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_RESET_FAILED");
        assert!(chain(&error).contains(operation), "{}", chain(&error));
        assert!(!served.runs(), "{operation}");
        match sandbox.state() {
            SandboxState::Failed { error: why } => assert_eq!(chain(&why), chain(&error)),
            state => panic!("{state:?}"),
        }
        reset_by(&sandbox, VmmUsed::New).await;
        sandbox.shutdown().await;
        stage.assert_empty();
    }
}

#[tokio::test]
async fn a_vmm_of_another_program_is_not_killed_and_the_reset_fails_in_time() {
    let mut scene = Scene::minted().await;
    scene.limits.vmm_lifecycle = Duration::from_millis(500);
    let sandbox = scene.sandbox();
    sandbox.boot().await.unwrap();
    scene.vmm.on("vm.delete", 1, Act::Hang);
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_FAILED");
    assert!(chain(&error).contains("vm.delete"), "{}", chain(&error));
    reset_by(&sandbox, VmmUsed::Attached).await;
    sandbox.shutdown().await;
}
