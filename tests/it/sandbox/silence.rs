//! A source that gives no answer: it is asked once more, and then the sandbox halts. Silence never counts as agreement.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chv_sandbox::guest::protocol::Frame;
use chv_sandbox::guest::stand_in::Behaviour;
use chv_sandbox::sandbox::{
    CheckOutcome, CheckSource, ChvSandbox, DivergenceAction, Sandbox, VmmApiState,
};

use super::script::Act;
use super::{Scene, assert_echoed, assert_halted, echo};

/// The sources for which only the guest can answer.
const OF_THE_GUEST: [CheckSource; 4] = [
    CheckSource::OpenFdCount,
    CheckSource::GuestNonce,
    CheckSource::GuestRandomness,
    CheckSource::GuestClock,
];

async fn hurried() -> (Scene, ChvSandbox) {
    let mut scene = Scene::minted().await;
    scene.hurry();
    let sandbox = scene.sandbox();
    sandbox.boot().await.unwrap();
    scene.vmm.take_asked();
    (scene, sandbox)
}

/// Checks that a reset of `sandbox` finds exactly these sources silent, both times.
async fn check_silent_twice(scene: &Scene, sandbox: &ChvSandbox, sources: &[CheckSource]) {
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_TIMEOUT");
    let failed = error.failed_reset().unwrap();
    let state = &failed.outcome.state;
    assert!(!state.verification_passed);
    let details = &state.verification_details;
    assert!(details.fs_hash_match);
    assert_eq!(details.divergence_action, DivergenceAction::Halt);
    assert_eq!(failed.outcome.report.attempt, 2);
    let silent = failed.outcome.report.checks.iter();
    let silent = silent.filter(|check| check.outcome == CheckOutcome::Silent);
    let silent: Vec<_> = silent.map(|check| check.source).collect();
    assert_eq!(silent, sources, "{error}");
    assert!(failed.evidence.is_some());
    let restores = scene.vmm.take_asked();
    let restores = restores.iter().filter(|asked| *asked == "vm.restore");
    assert_eq!(restores.count(), 2, "each try is a whole revert");
    assert_halted(sandbox).await;
}

#[tokio::test]
async fn a_guest_that_is_silent_twice_halts() {
    for behaviour in [Behaviour::Silent, Behaviour::NoListener] {
        let (scene, sandbox) = hurried().await;
        scene.guest.behave(behaviour);
        check_silent_twice(&scene, &sandbox, &OF_THE_GUEST).await;
    }
}

#[tokio::test]
async fn a_guest_that_greets_and_then_says_nothing_is_silent() {
    let (scene, sandbox) = hurried().await;
    let mute = |frame: &Frame| matches!(frame, Frame::GuestQuery(_)).then(Vec::new);
    scene.guest.behave(Behaviour::Intercepted(Arc::new(mute)));
    check_silent_twice(&scene, &sandbox, &OF_THE_GUEST).await;
}

#[tokio::test]
async fn a_vmm_that_is_silent_twice_halts() {
    let (scene, sandbox) = hurried().await;
    scene.vmm.on("vm.info", 1, Act::Hang);
    scene.vmm.on("vm.info", 2, Act::Hang);
    check_silent_twice(&scene, &sandbox, &[CheckSource::VmmApiState]).await;
}

#[tokio::test]
async fn a_silent_vmm_is_in_the_state_error() {
    let (scene, sandbox) = hurried().await;
    scene.vmm.on("vm.info", 1, Act::Hang);
    scene.vmm.on("vm.info", 2, Act::Hang);
    let error = sandbox.reset().await.unwrap_err();
    let state = &error.failed_reset().unwrap().outcome.state;
    assert_eq!(state.verification_details.vmm_api_state, VmmApiState::Error);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_source_that_is_silent_once_is_asked_again() {
    let (scene, sandbox) = hurried().await;
    scene.vmm.on("vm.info", 1, Act::Hang);
    let reset = sandbox.reset().await.unwrap();
    assert!(reset.is_verified());
    assert_eq!(reset.outcome().report.attempt, 2);

    let queries = AtomicUsize::new(0);
    let first_is_mute = move |frame: &Frame| {
        let query = matches!(frame, Frame::GuestQuery(_));
        (query && queries.fetch_add(1, Ordering::Relaxed) == 0).then(Vec::new)
    };
    scene
        .guest
        .behave(Behaviour::Intercepted(Arc::new(first_is_mute)));
    let reset = sandbox.reset().await.unwrap();
    assert!(reset.is_verified());
    assert_eq!(reset.outcome().report.attempt, 2);
    assert_echoed(echo(&sandbox, "after").await, "after");
    sandbox.shutdown().await;
}
