//! Sandboxes that verify nothing: scaffold mode, which has to be asked for by name, and the stub.

use chv_sandbox::sandbox::{
    Backend, Error, Event, Reset, ResetVerdict, Sandbox, StrategyUsed, StubSandbox, ToolInvocation,
    ToolOutcome, WireState,
};
use serde_json::json;

use super::{Scene, assert_echoed, echo, invocation, states};

/// Checks that the reset reports, in the shape of the protocol, that nothing was verified.
#[track_caller]
fn assert_scaffold(reset: &Reset) {
    let Reset::Scaffold(outcome) = reset else {
        panic!("nothing can have been verified: {reset:?}");
    };
    assert!(!reset.is_verified());
    assert!(outcome.report.checks.is_empty());
    let mut state = serde_json::to_value(&outcome.state).unwrap();
    state["reset_at"].take();
    assert_eq!(
        state,
        json!({
            "reset_at": null,
            "golden_hash": "sha256:not-configured",
            "verification_passed": true,
            "verification_details": {
                "fs_hash": "sha256:not-configured",
                "fs_hash_baseline": "sha256:not-configured",
                "fs_hash_match": true,
                "open_fd_count": 0,
                "open_fd_count_baseline": 0,
                "vmm_api_state": "running",
                "expected_vmm_api_state": "running",
                "divergence_action": "none",
            },
        })
    );
}

#[tokio::test]
async fn scaffold_mode_boots_again_from_its_disks_and_verifies_nothing() {
    let scene = Scene::new();
    let sandbox = scene.sandbox_of(scene.config_of(scene.scaffold()));
    sandbox.boot().await.unwrap();
    assert_echoed(echo(&sandbox, "cold").await, "cold");
    scene.vmm.take_asked();

    let working = scene.path("machine/overlay.img");
    super::flip_a_bit(&working);
    // A verified reset would find this change.
    scene.guest.set_open_files(99);
    let reset = sandbox.reset().await.unwrap();
    assert_scaffold(&reset);
    assert_eq!(reset.outcome().report.strategy, StrategyUsed::ColdBoot);
    let asked = ["vm.delete", "vm.create", "vm.info", "vm.boot", "vm.info"];
    assert_eq!(scene.vmm.take_asked(), asked);
    assert_eq!(
        std::fs::read(working).unwrap(),
        std::fs::read(scene.path("overlay.img")).unwrap()
    );
    assert_echoed(echo(&sandbox, "again").await, "again");
    sandbox.shutdown().await;
    scene.assert_machine_is_empty();
}

#[tokio::test]
async fn the_stub_answers_echo_and_verifies_nothing() {
    let sandbox: Box<dyn Sandbox> = Box::new(StubSandbox::default());
    let mut events = sandbox.subscribe();
    assert_eq!(sandbox.backend(), Backend::Stub);
    let early = echo(&*sandbox, "early").await.unwrap_err();
    assert!(matches!(early, Error::NotReady { .. }));
    assert!(matches!(sandbox.reset().await, Err(Error::NotReady { .. })));

    sandbox.boot().await.unwrap();
    sandbox.boot().await.unwrap();
    assert_echoed(echo(&*sandbox, "hello").await, "hello");
    let unknown = sandbox.execute_tool(invocation("1", "whoami")).await;
    let unknown = unknown.unwrap();
    assert_eq!(unknown.outcome, ToolOutcome::NoSuchTool);
    assert_eq!(unknown.exit_code(), 127);
    let wrong = ToolInvocation::new("echo", json!({ "message": 7 }));
    let wrong = sandbox.execute_tool(wrong).await.unwrap();
    assert!(
        matches!(&wrong.outcome, ToolOutcome::Refused { reason } if *reason == wrong.stderr.text()),
        "{:?}",
        wrong.outcome
    );
    let refused = sandbox.execute_tool(invocation("1", "")).await.unwrap_err();
    assert_eq!(refused.code(), "SANDBOX_TOOL_REFUSED");

    let mut all = sandbox.subscribe();
    let reset = sandbox.reset().await.unwrap();
    assert_scaffold(&reset);
    let mut told = Vec::new();
    while let Ok(event) = all.try_recv() {
        if let Event::Reset(outcome) = &event {
            let json = serde_json::to_value(&event).unwrap();
            told.push((
                outcome.verdict(),
                json["verdict"].clone(),
                event.to_string(),
            ));
        }
    }
    let [(verdict, json, line)] = &told[..] else {
        panic!("an agent's audit sees it as it would another back end's: {told:?}");
    };
    // Not to be taken for a verified one, although `verification_passed` is true.
    assert!(reset.outcome().state.verification_passed);
    assert_eq!(*verdict, ResetVerdict::Unverified);
    assert_eq!(json, "unverified");
    assert!(line.ends_with(": unverified"), "{line}");
    sandbox.shutdown().await;
    sandbox.shutdown().await;
    use WireState::{NotBooted, Ready, Resetting};
    assert_eq!(states(&mut events), [Ready, Resetting, Ready, NotBooted]);
}
