//! Guests that are older, silent or lie.

use std::sync::Arc;

use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{ErrorEvent, Frame, Hello, Opened};
use chv_sandbox::guest::stand_in::{Behaviour, Intercept};
use chv_sandbox::sandbox::ToolRefusal;
use chv_sandbox::vsock;

use super::*;

/// A sandbox whose guest answers the first frame of each run with these bytes.
async fn opening(bytes: Vec<u8>) -> (Scene, ChvSandbox) {
    let intercept: Intercept = Arc::new(move |frame| match frame {
        Frame::OpenRun(_) => Some(bytes.clone()),
        _ => None,
    });
    booted_as(|scene| {
        scene.limits.tool_grace = SHORT;
        scene.guest.behave(Behaviour::Intercepted(intercept));
    })
    .await
}

fn opened(records: &[u8]) -> Vec<u8> {
    let mut bytes = encode(&Frame::Opened(Opened {})).unwrap();
    bytes.extend(records);
    bytes
}

/// The last record of a run, with this link for both directions.
fn end(link: &str) -> Vec<u8> {
    let end = json!({
        "outcome": { "kind": "exited", "code": 0 },
        "stdout_total": 0, "stderr_total": 0, "cut": false,
        "to_guest_hash": link, "to_host_hash": link, "records_taken": 0,
    })
    .to_string();
    let length = (end.len() as u32).to_be_bytes();
    [&[6][..], &length, end.as_bytes()].concat()
}

/// Checks that the sandbox needs a reset for this reason, and works after it.
async fn assert_mended(scene: &Scene, sandbox: &ChvSandbox, reason: ResetReason) {
    assert_needs_reset(sandbox, reason);
    scene.guest.behave(Behaviour::Dispatcher);
    assert!(sandbox.reset().await.unwrap().is_verified());
    let done = sandbox.start(shell("echo mended")).await.unwrap();
    let mut done = done;
    assert_eq!(
        done.collect_output(99).await.unwrap().stdout.text(),
        "mended\n"
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn an_older_guest_still_runs_tools_and_is_not_asked_for_streams() {
    let intercept: Intercept = Arc::new(|frame| match frame {
        Frame::Hello(_) => {
            let mut hello = Hello::of_this_build();
            hello
                .extensions
                .retain(|it| it != "run/1" && it != "files/1");
            Some(encode(&Frame::Hello(hello)).unwrap())
        }
        Frame::OpenRun(_) => panic!("it was asked"),
        _ => None,
    });
    let scene = Scene::of(toolbox());
    scene.guest.behave(Behaviour::Intercepted(intercept));
    let sandbox = scene.sandbox_of(scene.config_of(scene.scaffold()));
    sandbox.boot().await.unwrap();
    let error = sandbox.start(shell("true")).await.unwrap_err();
    assert!(
        matches!(error, Error::ToolRefused(ToolRefusal::NotSupported(_))),
        "{error:?}"
    );
    assert_eq!(error.advice(), chv_sandbox::sandbox::Advice::SkipTool);
    super::super::assert_echoed(super::super::echo(&sandbox, "old").await, "old");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_guest_that_ends_no_run_is_given_up_after_deadline_and_grace() {
    let (scene, sandbox) = opening(opened(b"\x03\0\0\0\x02on")).await;
    let mut running = sandbox
        .start(shell("true").with_deadline(SHORT))
        .await
        .unwrap();
    let chunk = running.next().await.unwrap().unwrap();
    assert_eq!(&chunk.bytes[..], b"on");
    let error = running.next().await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::ToolTimeout { deadline, .. } if deadline == SHORT),
        "{error:?}"
    );
    assert_mended(&scene, &sandbox, ResetReason::ToolTimedOut).await;
}

#[tokio::test]
async fn a_guest_that_never_opens_a_run_is_waited_for_as_long_as_a_handshake_may_take() {
    let (scene, sandbox) = {
        let silent: Intercept = Arc::new(|frame| match frame {
            Frame::OpenRun(_) => Some(Vec::new()),
            _ => None,
        });
        booted_as(|scene| {
            scene.limits.handshake = Duration::from_millis(300);
            scene.guest.behave(Behaviour::Intercepted(silent));
        })
        .await
    };
    let error = sandbox.start(shell("true")).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Channel(vsock::Error::NoAnswer {
                request: "OpenRun",
                ..
            })
        ),
        "{error:?}"
    );
    assert_mended(&scene, &sandbox, ResetReason::ToolTimedOut).await;
}

#[tokio::test]
async fn evidence_of_something_else_needs_a_reset() {
    let link = format!("sha256:{}", "5".repeat(64));
    let (scene, sandbox) = opening(opened(&end(&link))).await;
    let mut running = sandbox.start(shell("true")).await.unwrap();
    let error = running.wait().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_TOOL_ERROR");
    assert!(matches!(
        error,
        Error::Channel(vsock::Error::Evidence { .. })
    ));
    assert_mended(&scene, &sandbox, ResetReason::EvidenceRejected).await;
}

#[tokio::test]
async fn a_record_that_breaks_the_protocol_ends_its_run_alone_and_needs_a_reset() {
    let (scene, sandbox) = opening(opened(b"\x01\0\0\0\x01x")).await;
    let mut running = sandbox.start(shell("true")).await.unwrap();
    let error = running.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), "SANDBOX_VSOCK_PROTOCOL_ERROR");
    assert_mended(&scene, &sandbox, ResetReason::ChannelBroken).await;
}

#[tokio::test]
async fn a_run_that_is_cut_off_needs_a_reset() {
    // The answer breaks off inside a record, and the deadline comes first.
    let (scene, sandbox) = opening(opened(b"\x03\0\0\0\x09cut")).await;
    let mut running = sandbox
        .start(shell("true").with_deadline(SHORT))
        .await
        .unwrap();
    let error = running.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::ToolTimeout { .. }), "{error:?}");
    drop(running);

    assert_mended(&scene, &sandbox, ResetReason::ToolTimedOut).await;
}

#[tokio::test]
async fn a_refusal_of_another_kind_is_the_guests_word() {
    let event = ErrorEvent {
        code: "SOMETHING".to_owned(),
        message: "else".to_owned(),
    };
    let (_scene, sandbox) = opening(encode(&Frame::ErrorEvent(event)).unwrap()).await;
    let error = sandbox.start(shell("true")).await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_TOOL_ERROR");
    assert!(
        matches!(&error, Error::Channel(vsock::Error::Refused { code, .. }) if code == "SOMETHING"),
        "{error:?}"
    );
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_reset_ends_a_run_that_is_being_opened() {
    let (scene, sandbox) = opening(Vec::new()).await;
    let mut events = sandbox.subscribe();
    let reset = async {
        told(&mut events, |event| {
            matches!(event, Event::ToolStarted { .. }).then_some(())
        })
        .await;
        scene.guest.behave(Behaviour::Dispatcher);
        sandbox.reset().await
    };
    let (started, reset) = tokio::join!(sandbox.start(shell("true")), reset);
    let error = started.unwrap_err();
    assert!(matches!(error, Error::ResetInterrupted), "{error:?}");
    assert!(reset.unwrap().is_verified());
    sandbox.shutdown().await;
}
