//! One tool for each reset, which is the default of a sandbox, and a tool together with its reset in one call.

use std::sync::Arc;
use std::time::Duration;

use chv_sandbox::guest::protocol::Frame;
use chv_sandbox::guest::stand_in::{Behaviour, Intercept};
use chv_sandbox::sandbox::{
    Advice, ChvSandbox, Error, Event, ResetReason, Sandbox, SandboxState, ToolInvocation,
    ToolsPerReset, WireState,
};
use serde_json::json;

use super::{Scene, assert_echoed, echo, flip_a_bit, invocation};

async fn booted(scene: &Scene) -> ChvSandbox {
    let sandbox = scene.sandbox_of(scene.config().tools_per_reset(ToolsPerReset::default()));
    sandbox.boot().await.unwrap();
    sandbox
}

/// A sandbox whose guest answers everything except a dispatched tool.
async fn booted_with_a_guest_that_runs_no_tool() -> (Scene, ChvSandbox) {
    let mut scene = Scene::minted().await;
    scene.limits.tool_grace = Duration::from_millis(50);
    let silent: Intercept = Arc::new(|frame| match frame {
        Frame::ToolDispatch(_) => Some(Vec::new()),
        _ => None,
    });
    scene.guest.behave(Behaviour::Intercepted(silent));
    let sandbox = booted(&scene).await;
    (scene, sandbox)
}

#[track_caller]
fn assert_needs_reset(sandbox: &ChvSandbox, expected: ResetReason) {
    match sandbox.state() {
        SandboxState::NeedsReset { reason } => assert_eq!(reason, expected),
        state => panic!("{state:?}"),
    }
    assert_eq!(sandbox.state().wire(), WireState::Ready);
}

#[tokio::test]
async fn a_second_tool_needs_a_reset() {
    let scene = Scene::minted().await;
    let sandbox = booted(&scene).await;
    for round in ["first", "second"] {
        assert_echoed(echo(&sandbox, round).await, round);
        assert_needs_reset(&sandbox, ResetReason::ToolRan);
        let error = echo(&sandbox, "another").await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::NeedsReset {
                    reason: ResetReason::ToolRan
                }
            ),
            "{error:?}"
        );
        assert_eq!(error.code(), "SANDBOX_RESET_REQUIRED");
        assert_eq!(error.advice(), Advice::Reset);
        assert!(sandbox.reset().await.unwrap().is_verified());
    }
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_second_tool_beside_the_first_is_refused_too() {
    let scene = Scene::minted().await;
    let sandbox = booted(&scene).await;
    let (first, second) = tokio::join!(echo(&sandbox, "first"), echo(&sandbox, "second"));
    assert_echoed(first, "first");
    assert!(
        matches!(second, Err(Error::NeedsReset { .. })),
        "{second:?}"
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_tool_that_was_not_sent_does_not_count() {
    let scene = Scene::minted().await;
    let sandbox = booted(&scene).await;
    let nameless = sandbox.execute_tool(invocation("1", "")).await;
    let large = ToolInvocation::new("echo", json!({ "message": "x".repeat(17 << 20) }));
    let large = sandbox.execute_tool(large);
    for refused in [nameless.unwrap_err(), large.await.unwrap_err()] {
        assert!(matches!(refused, Error::ToolRefused(_)), "{refused:?}");
        assert_eq!(refused.advice(), Advice::SkipTool);
    }
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    assert_echoed(
        echo(&sandbox, "the first that is sent").await,
        "the first that is sent",
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_more_specific_reason_than_that_a_tool_ran_is_given() {
    let (_scene, sandbox) = booted_with_a_guest_that_runs_no_tool().await;
    let hanging = sandbox
        .execute_tool(invocation("hanging", "echo").with_deadline(Duration::from_millis(50)));
    assert!(matches!(hanging.await, Err(Error::ToolTimeout { .. })));
    assert_needs_reset(&sandbox, ResetReason::ToolTimedOut);

    assert!(sandbox.reset().await.unwrap().is_verified());
    let mut events = sandbox.subscribe();
    {
        let mut given_up = Box::pin(echo(&sandbox, "given up"));
        let begun = async {
            while !matches!(
                events.recv().await,
                Ok(Event::State(SandboxState::NeedsReset { .. }))
            ) {}
        };
        tokio::select! {
            biased;
            result = &mut given_up => panic!("{result:?}"),
            () = begun => {}
        }
    }
    assert_needs_reset(&sandbox, ResetReason::CallerGone);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_tool_with_its_reset_leaves_the_sandbox_clean() {
    let scene = Scene::minted().await;
    let sandbox = booted(&scene).await;
    for message in ["first", "second"] {
        let done = sandbox.run_once(invocation(message, "echo")).await.unwrap();
        assert!(done.reset.is_verified());
        assert_echoed(Ok(done.execution), message);
        assert!(matches!(sandbox.state(), SandboxState::Ready));
    }
    // No tool ran, so the sandbox is not reset.
    scene.vmm.take_asked();
    let refused = sandbox.run_once(invocation("1", "")).await.unwrap_err();
    assert!(matches!(refused, Error::ToolRefused(_)), "{refused:?}");
    assert_eq!(scene.vmm.take_asked(), [""; 0]);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn the_output_of_a_tool_whose_reset_is_not_verified_is_not_given() {
    let scene = Scene::minted().await;
    let sandbox = booted(&scene).await;
    flip_a_bit(&scene.path("root.img"));
    let error = sandbox
        .run_once(invocation("secret", "echo"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::ResetDivergence(_)), "{error:?}");
    assert_eq!(error.advice(), Advice::Rebuild);
    assert!(sandbox.state().is_halted());
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_tool_that_gave_no_answer_is_told_after_its_reset() {
    let (_scene, sandbox) = booted_with_a_guest_that_runs_no_tool().await;
    let hanging =
        sandbox.run_once(invocation("hanging", "echo").with_deadline(Duration::from_millis(50)));
    let error = hanging.await.unwrap_err();
    assert!(matches!(error, Error::ToolTimeout { .. }), "{error:?}");
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    sandbox.shutdown().await;
}
