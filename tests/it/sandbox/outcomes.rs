//! How a tool ended and what it wrote, as the agent gets it through a sandbox.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{
    EvidenceChain, EvidenceChunk, Frame, Hello, MAX_OUTPUT, ResultDetails, ToolOutcomeKind,
    ToolResult,
};
use chv_sandbox::guest::stand_in::{Behaviour, Intercept};
use chv_sandbox::sandbox::{
    ChvSandbox, Error, Sandbox, ToolExecution, ToolInvocation, ToolOutcome, ToolOutput,
};
use chv_sandbox::vsock::{self, EvidenceError};
use serde_json::json;

use super::{PATIENCE, Scene, invocation};

/// A booted sandbox whose guest always answers with these frames instead of the dispatcher's.
async fn answering(
    answer: impl Fn(&Frame) -> Option<Vec<Frame>> + Send + Sync + 'static,
) -> (Scene, ChvSandbox) {
    let scene = Scene::new();
    let intercept: Intercept = Arc::new(move |frame| {
        let frames = answer(frame)?;
        let frames = frames.iter().flat_map(|frame| encode(frame).unwrap());
        Some(frames.collect())
    });
    scene.guest.behave(Behaviour::Intercepted(intercept));
    scene.mint().await.unwrap();
    let sandbox = scene.sandbox();
    sandbox.boot().await.unwrap();
    (scene, sandbox)
}

/// Runs `cat` on a file with these bytes.
async fn cat(scene: &Scene, sandbox: &ChvSandbox, bytes: &[u8]) -> ToolExecution {
    let file = scene.path("file");
    fs::write(&file, bytes).unwrap();
    let invocation = ToolInvocation::new("cat", json!({ "path": file })).with_deadline(PATIENCE);
    sandbox.execute_tool(invocation).await.unwrap()
}

#[tokio::test]
async fn the_guest_tells_how_a_tool_ended() {
    let (scene, sandbox) = Scene::booted().await;
    let run = async |invocation: ToolInvocation| sandbox.execute_tool(invocation).await.unwrap();

    let echoed = run(invocation("hi", "echo")).await;
    assert_eq!(echoed.outcome, ToolOutcome::Exited { code: 0 });
    assert_eq!(echoed.stdout, ToolOutput::whole("hi\n"));
    assert_eq!(echoed.stderr, ToolOutput::whole(""));
    assert!(echoed.evidence_hash.is_some() && echoed.took > Duration::ZERO);

    let failed = run(ToolInvocation::new("cat", json!({ "path": "/no/such" }))).await;
    assert_eq!(failed.outcome, ToolOutcome::Exited { code: 1 });
    assert!(failed.stderr.text().contains("/no/such"));
    assert_eq!(failed.stderr.is_cut(), Some(false));

    let unknown = run(invocation("1", "no such tool")).await;
    assert_eq!(unknown.outcome, ToolOutcome::NoSuchTool);

    let refused = run(ToolInvocation::new("echo", json!({ "message": 7 }))).await;
    let ToolOutcome::Refused { reason } = &refused.outcome else {
        panic!("{refused:?}")
    };
    assert_eq!(*reason, refused.stderr.text());
    assert!(reason.contains("\"message\""), "{reason}");

    // Opening this FIFO for reading waits for a writer, which never comes.
    let fifo = scene.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let hanging = ToolInvocation::new("cat", json!({ "path": fifo }));
    let late = run(hanging.with_deadline(Duration::from_millis(50))).await;
    assert_eq!(late.outcome, ToolOutcome::DeadlineExceeded);
    assert_eq!(late.stderr, ToolOutput::whole("deadline_exceeded"));
    assert!(late.took >= Duration::from_millis(50));

    for (execution, exit_code) in [
        (echoed, 0),
        (failed, 1),
        (unknown, 127),
        (refused, 254),
        (late, 137),
    ] {
        assert_eq!(execution.exit_code(), exit_code);
        assert_eq!(execution.is_success(), exit_code == 0);
    }
    sandbox.shutdown().await;
}

#[tokio::test]
async fn output_comes_as_the_bytes_that_it_is() {
    let (scene, sandbox) = Scene::booted().await;
    let bytes = b"\xff\xfe\0text\xe2\x82";
    let execution = cat(&scene, &sandbox, bytes).await;
    assert_eq!(execution.stdout, ToolOutput::whole(*bytes));
    assert_eq!(execution.stdout.text(), "\u{fffd}\u{fffd}\0text\u{fffd}");
    let wire = serde_json::to_value(&execution).unwrap();
    assert_eq!(
        wire,
        json!({
            "exit_code": 0, "stdout": "\u{fffd}\u{fffd}\0text\u{fffd}", "stderr": "",
            "evidence_hash": execution.evidence_hash,
        })
    );

    let whole = vec![0xfe; MAX_OUTPUT + 7];
    let cut = cat(&scene, &sandbox, &whole).await;
    assert_eq!(cut.stdout.total(), Some(whole.len() as u64));
    assert_eq!(cut.stdout.is_cut(), Some(true));
    assert!(cut.stdout.bytes() == &whole[..MAX_OUTPUT]);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn the_outcome_of_an_older_guest_is_not_guessed() {
    // The dispatcher never sees a hello, so it treats the host as an older one.
    let (scene, sandbox) = answering(|frame| {
        let Frame::Hello(_) = frame else {
            return None;
        };
        let extensions = vec![
            "reseed".to_owned(),
            "clock".to_owned(),
            "evidence".to_owned(),
        ];
        Some(vec![Frame::Hello(Hello {
            extensions,
            ..Hello::of_this_build()
        })])
    })
    .await;
    let unknown = sandbox.execute_tool(invocation("1", "no such tool")).await;
    let unknown = unknown.unwrap();
    let exit_code = 127;
    assert_eq!(unknown.outcome, ToolOutcome::Unspecified { exit_code });
    assert_eq!((unknown.exit_code(), unknown.is_success()), (127, false));
    assert!(unknown.evidence_hash.is_some());

    let execution = cat(&scene, &sandbox, b"\xffx").await;
    assert_eq!(execution.outcome, ToolOutcome::Unspecified { exit_code: 0 });
    assert!(execution.is_success());
    assert_eq!(execution.stdout, ToolOutput::of_unknown_total("\u{fffd}x"));
    let stdout = &execution.stdout;
    assert_eq!((stdout.total(), stdout.is_cut()), (None, None));
    sandbox.shutdown().await;
}

/// The frames that a guest of this build sends for a tool that a signal killed, with this number of kept bytes of
/// standard output.
fn killed(command_id: &str, stdout_kept: u64) -> Vec<Frame> {
    let chunk = EvidenceChunk {
        command_id: command_id.to_owned(),
        seq: 1,
        chunk_data: b"ab".to_vec(),
        chunk_size: 2,
        is_terminal: true,
    };
    let mut chain = EvidenceChain::default();
    chain.append(&chunk);
    let result = ToolResult {
        command_id: command_id.to_owned(),
        exit_code: 139,
        stdout: "a".to_owned(),
        stderr: "b".to_owned(),
        evidence_hash: Some(chain.last_link()),
        details: Some(ResultDetails {
            outcome: ToolOutcomeKind::Signalled,
            stdout_total: u64::MAX,
            stdout_kept,
            stderr_total: 1,
            stderr_kept: 1,
        }),
    };
    vec![Frame::EvidenceChunk(chunk), Frame::ToolResult(result)]
}

#[tokio::test]
async fn a_signal_and_what_was_dropped_are_told() {
    let (_scene, sandbox) = answering(|frame| match frame {
        Frame::ToolDispatch(dispatch) => Some(killed(&dispatch.command_id, 1)),
        _ => None,
    })
    .await;
    let execution = sandbox.execute_tool(invocation("1", "echo")).await.unwrap();
    assert_eq!(execution.outcome, ToolOutcome::Signalled { signal: 11 });
    assert_eq!(execution.stdout, ToolOutput::cut("a", u64::MAX));
    assert_eq!(execution.stderr, ToolOutput::whole("b"));
    assert_eq!(execution.exit_code(), 139);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn details_that_do_not_add_up_fail_the_tool_until_a_reset() {
    let (scene, sandbox) = answering(|frame| match frame {
        Frame::ToolDispatch(dispatch) => Some(killed(&dispatch.command_id, 2)),
        _ => None,
    })
    .await;
    let error = sandbox.execute_tool(invocation("1", "echo")).await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_TOOL_ERROR");
    assert!(
        matches!(
            &error,
            Error::Channel(vsock::Error::Evidence {
                source: EvidenceError::KeptElsewhere {
                    stdout_kept: 2,
                    stderr_kept: 1,
                    found: 2
                },
                ..
            })
        ),
        "{error:?}"
    );
    let next = sandbox.execute_tool(invocation("2", "echo")).await;
    assert!(matches!(next, Err(Error::NeedsReset { .. })), "{next:?}");
    scene.guest.behave(Behaviour::Dispatcher);
    assert!(sandbox.reset().await.unwrap().is_verified());
    let mended = sandbox.execute_tool(invocation("3", "echo")).await;
    assert!(mended.unwrap().is_success());
    sandbox.shutdown().await;
}
