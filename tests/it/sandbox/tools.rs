//! Tools: which ends are results, which are errors, and which need a reset.

use std::sync::Arc;
use std::time::Duration;

use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{Frame, ToolResult};
use chv_sandbox::guest::stand_in::{Behaviour, Intercept};
use chv_sandbox::sandbox::{Advice, ChvSandbox, Error, Event, Sandbox, ToolInvocation, WireState};
use chv_sandbox::vsock::ChannelEventKind;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use super::{PATIENCE, Scene, assert_echoed, echo, invocation};

/// A booted sandbox whose guest answers a dispatch with `answer`.
async fn answering(
    answer: impl Fn(&Frame) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> (Scene, ChvSandbox) {
    let mut scene = Scene::minted().await;
    scene.limits.tool_grace = Duration::from_millis(50);
    let intercept: Intercept = Arc::new(move |frame| match frame {
        Frame::ToolDispatch(_) => answer(frame),
        _ => None,
    });
    scene.guest.behave(Behaviour::Intercepted(intercept));
    let sandbox = scene.sandbox();
    sandbox.boot().await.unwrap();
    (scene, sandbox)
}

/// Checks that the sandbox, although ready, takes no tool until it is reset.
async fn assert_mended_by_a_reset(scene: &Scene, sandbox: &ChvSandbox) {
    assert_eq!(sandbox.state().wire(), WireState::Ready);
    let error = echo(sandbox, "next").await.unwrap_err();
    assert!(matches!(error, Error::NeedsReset { .. }), "{error}");
    assert_eq!(error.code(), "SANDBOX_RESET_REQUIRED");
    assert_eq!(error.advice(), Advice::Reset);
    sandbox.boot().await.unwrap();
    assert!(echo(sandbox, "boot mends nothing").await.is_err());

    scene.guest.behave(Behaviour::Dispatcher);
    assert!(sandbox.reset().await.unwrap().is_verified());
    assert_echoed(echo(sandbox, "mended").await, "mended");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn an_exit_code_is_a_result() {
    let (_scene, sandbox) = Scene::booted().await;
    let unknown = sandbox.execute_tool(invocation("1", "no such tool")).await;
    assert_eq!(unknown.unwrap().exit_code(), 127);
    let failing = ToolInvocation::new("cat", json!({ "path": "/no/such/file" }));
    let failing = sandbox.execute_tool(failing).await.unwrap();
    assert_eq!(failing.exit_code(), 1);
    let stderr = failing.stderr.text();
    assert!(stderr.contains("/no/such/file"), "{stderr}");
    let wrong = ToolInvocation::new("echo", json!({ "message": 7 }));
    let wrong = sandbox.execute_tool(wrong).await.unwrap();
    assert_eq!(wrong.exit_code(), 254);
    assert_echoed(echo(&sandbox, "goes on").await, "goes on");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_name_that_no_tool_can_have_is_refused_unsent() {
    let (_scene, sandbox) = Scene::booted().await;
    for name in ["", &"x".repeat(257)] {
        let error = sandbox
            .execute_tool(invocation("1", name))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::ToolRefused(_)), "{error}");
        assert_eq!(error.code(), "SANDBOX_TOOL_REFUSED");
    }
    let longest = sandbox
        .execute_tool(invocation("1", &"x".repeat(256)))
        .await;
    assert_eq!(longest.unwrap().exit_code(), 127);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn many_tools_run_at_once_and_each_gets_its_own_result() {
    let (_scene, sandbox) = Scene::booted().await;
    let messages: Vec<_> = (0..24).map(|number| format!("message {number}")).collect();
    let executions = join_all(messages.iter().map(|message| echo(&sandbox, message))).await;
    for (execution, message) in executions.into_iter().zip(&messages) {
        assert_echoed(execution, message);
    }
    sandbox.shutdown().await;
}

#[tokio::test]
async fn two_runs_of_one_name_at_once_are_refused_and_harm_nothing() {
    let (_scene, sandbox) = Scene::booted().await;
    let (first, second) = tokio::join!(echo(&sandbox, "same"), echo(&sandbox, "same"));
    assert_echoed(first, "same");
    let error = second.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_VSOCK_DUPLICATE_REQUEST");
    assert_echoed(echo(&sandbox, "another").await, "another");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_tool_that_gives_no_answer_needs_a_reset() {
    let (scene, sandbox) = answering(|_| Some(Vec::new())).await;
    let hanging = invocation("hanging", "echo").with_deadline(Duration::from_millis(50));
    let error = sandbox.execute_tool(hanging).await.unwrap_err();
    assert!(matches!(error, Error::ToolTimeout { .. }), "{error}");
    assert_eq!(error.code(), "SANDBOX_TOOL_TIMEOUT");
    assert_mended_by_a_reset(&scene, &sandbox).await;
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_told() {
    let (scene, sandbox) = answering(|frame| {
        let Frame::ToolDispatch(dispatch) = frame else {
            unreachable!("only dispatches are shown");
        };
        // Longer than the deadline and the grace together. The guest's other answers wait behind this one.
        std::thread::sleep(Duration::from_millis(200));
        let result = ToolResult {
            command_id: dispatch.command_id.clone(),
            exit_code: 0,
            stdout: String::new(),
            stderr: String::new(),
            evidence_hash: None,
            details: None,
        };
        Some(encode(&Frame::ToolResult(result)).unwrap())
    })
    .await;
    let mut events = sandbox.subscribe();
    let late = invocation("late", "echo").with_deadline(Duration::from_millis(20));
    let late = sandbox.execute_tool(late).await;
    assert_eq!(late.unwrap_err().code(), "SANDBOX_TOOL_TIMEOUT");
    let told = async {
        loop {
            if let Event::Channel(event) = events.recv().await.unwrap()
                && let ChannelEventKind::LateArrival(frame) = event.kind
            {
                break frame;
            }
        }
    };
    let frame = timeout(PATIENCE, told).await.unwrap();
    assert!(matches!(&*frame, Frame::ToolResult(result) if result.command_id == "late"));
    assert_mended_by_a_reset(&scene, &sandbox).await;
}

#[tokio::test]
async fn a_guest_that_breaks_the_protocol_closes_the_channel_until_a_reset() {
    let cases: [(&[u8], &str); 4] = [
        (b"\0\0\0\x04junk", "SANDBOX_FRAME_MALFORMED"),
        (b"\0\0\0\0", "SANDBOX_FRAME_MALFORMED"),
        (b"\xff\xff\xff\xff", "SANDBOX_VSOCK_FRAME_TOO_LARGE"),
        (
            // Only the host may send this frame, so its body isn't read.
            b"\0\0\0\x42{\"type\":\"GuestQuery\",\"query_id\":\"\",\"query_kind\":\"MemUsage\",\"ts\":\"\"}",
            "SANDBOX_VSOCK_PROTOCOL_ERROR",
        ),
    ];
    for (garbage, code) in cases {
        let (scene, sandbox) = answering(|_| Some(garbage.to_vec())).await;
        let error = echo(&sandbox, "provokes it").await.unwrap_err();
        assert!(matches!(error, Error::Channel(_)), "{error}");
        assert_eq!(error.code(), code);
        assert_mended_by_a_reset(&scene, &sandbox).await;
    }
}

#[tokio::test]
async fn a_reset_ends_the_tools_that_run() {
    let (scene, sandbox) = answering(|_| Some(Vec::new())).await;
    let mut events = sandbox.subscribe();
    let reset = async {
        // Lets the tool be dispatched first.
        tokio::task::yield_now().await;
        scene.guest.behave(Behaviour::Dispatcher);
        sandbox.reset().await
    };
    let (tool, reset) = tokio::join!(echo(&sandbox, "in flight"), reset);
    assert!(reset.unwrap().is_verified());
    let error = tool.unwrap_err();
    assert!(matches!(error, Error::ResetInterrupted), "{error:?}");
    assert_echoed(echo(&sandbox, "in flight").await, "in flight");
    let closed = |event: &Event| matches!(event, Event::Channel(event) if matches!(event.kind, ChannelEventKind::Closed(_)));
    let mut seen = false;
    while let Ok(event) = events.try_recv() {
        seen |= closed(&event);
    }
    assert!(seen, "the end of the channel is told");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_ends_the_tools_that_run() {
    let (scene, sandbox) = answering(|_| Some(Vec::new())).await;
    let shutdown = async {
        tokio::task::yield_now().await;
        sandbox.shutdown().await;
    };
    let (tool, ()) = tokio::join!(echo(&sandbox, "in flight"), shutdown);
    let error = tool.unwrap_err();
    assert!(matches!(error, Error::ShutDown), "{error:?}");
    scene.assert_machine_is_empty();
}

#[tokio::test]
async fn the_frames_of_a_tool_are_told_with_their_channel() {
    let (scene, sandbox) = Scene::booted().await;
    let mut events = sandbox.subscribe();
    assert_echoed(echo(&sandbox, "audited").await, "audited");
    let channel = loop {
        if let Event::Channel(event) = events.recv().await.unwrap()
            && let ChannelEventKind::Frame(frame) = &event.kind
            && matches!(&**frame, Frame::ToolResult(result) if result.command_id == "audited")
        {
            break event.origin;
        }
    };
    assert_eq!(*channel.socket, *scene.guest.socket());
    sandbox.shutdown().await;
}

#[tokio::test]
async fn answers_of_a_restored_guest_are_told_before_the_sandbox_is_ready() {
    let (_scene, sandbox) = Scene::booted().await;
    let mut events = sandbox.subscribe();
    sandbox.reset().await.unwrap();
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        match event {
            Event::Channel(event) => match event.kind {
                ChannelEventKind::Frame(frame) => told.push(frame.name()),
                ChannelEventKind::Closed(_) => {}
                kind => panic!("{kind:?}"),
            },
            Event::State(state) if state.wire() == WireState::Ready => told.push("ready"),
            _ => {}
        }
    }
    assert_eq!(told, ["Hello", "Renewed", "GuestResponse", "ready"]);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_tool_whose_caller_went_away_needs_a_reset() {
    let (scene, sandbox) = answering(|_| Some(Vec::new())).await;
    timeout(Duration::from_millis(100), echo(&sandbox, "abandoned"))
        .await
        .unwrap_err();
    assert_mended_by_a_reset(&scene, &sandbox).await;
}

#[tokio::test]
async fn a_tool_with_forged_evidence_has_failed_and_needs_a_reset() {
    let (scene, sandbox) = answering(|frame| {
        let Frame::ToolDispatch(dispatch) = frame else {
            unreachable!("only dispatches are shown");
        };
        let result = ToolResult {
            command_id: dispatch.command_id.clone(),
            exit_code: 0,
            stdout: "fine\n".to_owned(),
            stderr: String::new(),
            evidence_hash: Some(format!("sha256:{}", "0".repeat(64))),
            details: None,
        };
        Some(encode(&Frame::ToolResult(result)).unwrap())
    })
    .await;
    let error = echo(&sandbox, "forged").await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_EVIDENCE_GAP");
    assert_mended_by_a_reset(&scene, &sandbox).await;
}
