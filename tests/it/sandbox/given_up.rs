//! A VMM that gives no answer: no reset waits for it longer than it is told to, and no guest goes on in it.

use chv_sandbox::sandbox::{
    ChvSandbox, Event, Sandbox, SandboxConfig, SandboxState, Strategy, StrategyUsed,
};

use super::stage::Stage;
use super::vmm::Act;
use super::{Scene, assert_echoed, chain, echo, told};

/// A sandbox with a VMM of its own, for which nobody waits long.
async fn booted(strategy: Strategy) -> (Scene, Stage, ChvSandbox) {
    let mut scene = Scene::minted().await;
    scene.timeouts.vmm_ms = 500;
    scene.timeouts.restore_ms = 500;
    let stage = scene.stage();
    let sandbox = stage.sandbox(SandboxConfig {
        strategy,
        ..scene.config()
    });
    sandbox.boot().await.unwrap();
    (scene, stage, sandbox)
}

async fn reset_by(sandbox: &ChvSandbox, expected: StrategyUsed) {
    let reset = sandbox.reset().await.unwrap();
    assert!(reset.is_verified());
    assert_eq!(reset.outcome().report.strategy, expected);
    assert_echoed(echo(sandbox, "after").await, "after");
}

#[tokio::test]
async fn a_reset_in_place_kills_it_and_goes_on_with_another() {
    for operation in ["vm.delete", "vm.restore", "vm.resume"] {
        let (scene, stage, sandbox) = booted(Strategy::InPlace).await;
        let mut events = sandbox.subscribe();
        let silent = stage.last();
        scene.vmm.on(operation, 1, Act::Hang);
        reset_by(&sandbox, StrategyUsed::Respawn).await;
        assert!(!silent.runs(), "{operation}");
        let error = told(&mut events, |event| match event {
            Event::VmmGivenUp(error) => Some(chain(&**error)),
            _ => None,
        });
        let error = error.await;
        assert!(error.contains(operation), "{error}");
        // Its end was asked for, so it is none of the sandbox's.
        assert_eq!(sandbox.state(), SandboxState::Ready);
        reset_by(&sandbox, StrategyUsed::InPlace).await;
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
    assert_eq!(sandbox.state(), SandboxState::Failed);
    reset_by(&sandbox, StrategyUsed::Respawn).await;
    reset_by(&sandbox, StrategyUsed::InPlace).await;
    sandbox.shutdown().await;
    stage.assert_empty();
}

#[tokio::test]
async fn a_respawn_that_fails_leaves_no_guest_in_a_vmm_that_does_not_let_go_of_it() {
    let (scene, stage, sandbox) = booted(Strategy::Respawn).await;
    let silent = stage.last();
    scene.vmm.on("vm.restore", 1, Act::Refuse);
    scene.vmm.on("vm.delete", 1, Act::Hang);
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_FAILED");
    assert!(!silent.runs());
    reset_by(&sandbox, StrategyUsed::Respawn).await;
    sandbox.shutdown().await;
    stage.assert_empty();
}

#[tokio::test]
async fn one_of_somebody_else_is_not_killed_and_the_reset_fails_in_time() {
    let mut scene = Scene::minted().await;
    scene.timeouts.vmm_ms = 500;
    let sandbox = scene.sandbox();
    sandbox.boot().await.unwrap();
    scene.vmm.on("vm.delete", 1, Act::Hang);
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_FAILED");
    assert!(chain(&error).contains("vm.delete"), "{}", chain(&error));
    reset_by(&sandbox, StrategyUsed::InPlace).await;
    sandbox.shutdown().await;
}
