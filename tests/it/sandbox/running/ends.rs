//! Runs that don't end by themselves: they are cancelled, dropped, reach their deadline, or end with their sandbox.

use std::sync::Arc;

use chv_sandbox::sandbox::ToolsPerReset;
use futures_util::future::poll_immediate;

use super::*;

#[tokio::test]
async fn cancelling_kills_the_tool_and_the_sandbox_goes_on() {
    let (_scene, sandbox) = booted().await;
    let mut events = sandbox.subscribe();
    let mut running = sandbox.start(shell("echo on; sleep 60")).await.unwrap();
    let first = running.next().await.unwrap().unwrap();
    assert_eq!(&first.bytes[..], b"on\n");
    running.cancel();
    let report = running.wait().await.unwrap();
    assert_eq!(report.outcome, ToolOutcome::Cancelled);
    assert_eq!(report.outcome.exit_code(), 130);
    assert!(matches!(sandbox.state(), SandboxState::Ready));

    // The event tells the same outcome, without the output.
    let (told, line) = told(&mut events, |event| match event {
        Event::ToolEnded { evidence, .. } => {
            Some((evidence.clone(), serde_json::to_value(event).unwrap()))
        }
        _ => None,
    })
    .await;
    assert_eq!(told.as_ref(), Some(&report.evidence));
    assert_eq!(line["outcome"], "cancelled");
    assert_eq!(line["stdout_total"], 3);
    assert_eq!(line["cut"], false);
    assert_eq!(line["to_host_hash"], report.evidence.to_host_hash.as_str());
    assert!(line.get("to_guest_hash").is_some());
    sandbox.shutdown().await;
}

#[tokio::test]
async fn cancelling_a_tool_that_ends_at_that_moment_gives_one_or_the_other() {
    let (_scene, sandbox) = booted().await;
    for _ in 0..20 {
        let mut running = sandbox.start(shell("exit 0")).await.unwrap();
        running.cancel();
        let outcome = running.wait().await.unwrap().outcome;
        assert!(
            matches!(
                outcome,
                ToolOutcome::Exited { code: 0 } | ToolOutcome::Cancelled
            ),
            "{outcome}"
        );
    }
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    sandbox.shutdown().await;
}

#[tokio::test]
async fn dropping_a_run_needs_a_reset_and_is_told() {
    let (_scene, sandbox) = booted().await;
    let mut events = sandbox.subscribe();
    drop(idle(&sandbox).await);
    assert_needs_reset(&sandbox, ResetReason::CallerGone);
    let ended = told_ended(&mut events).await;
    let reason = ResetReason::CallerGone;
    assert!(
        matches!(ended, Err(Error::NeedsReset { reason: it }) if it == reason),
        "{ended:?}"
    );
    assert!(sandbox.reset().await.unwrap().is_verified());

    // Dropping a run that has ended changes nothing.
    let mut running = sandbox.start(shell("true")).await.unwrap();
    running.wait().await.unwrap();
    drop(running);
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_tool_whose_future_is_dropped_is_told_too() {
    let (_scene, sandbox) = booted().await;
    let mut events = sandbox.subscribe();
    let sleeping = Box::pin(sandbox.execute_tool(shell("sleep 60")));
    assert!(poll_immediate(sleeping).await.is_none());
    assert_needs_reset(&sandbox, ResetReason::CallerGone);
    let ended = told_ended(&mut events).await;
    assert!(matches!(ended, Err(Error::NeedsReset { .. })), "{ended:?}");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn the_guest_ends_a_tool_at_its_deadline() {
    let (_scene, sandbox) = booted().await;
    let invocation = shell("echo on; sleep 60").with_deadline(SHORT * 4);
    let mut running = sandbox.start(invocation).await.unwrap();
    let report = running.wait().await.unwrap();
    assert_eq!(report.outcome, ToolOutcome::DeadlineExceeded);
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_no_deadline_up() {
    let (_scene, sandbox) = booted_as(|scene| scene.limits.tool_grace = SHORT).await;
    let mut events = sandbox.subscribe();
    let invocation = tool("flood").with_deadline(SHORT * 4);
    let mut running = sandbox.start(invocation).await.unwrap();
    // The guest can't report the end: it would come after output that is not read.
    let ended = told_ended(&mut events).await;
    assert!(matches!(ended, Err(Error::ToolTimeout { .. })), "{ended:?}");
    assert_needs_reset(&sandbox, ResetReason::ToolTimedOut);

    // The output that had arrived is still there, no more than the socket holds, and then the reason follows.
    let mut come = 0;
    let error = loop {
        match running.next().await.unwrap() {
            Ok(chunk) => come += chunk.bytes.len(),
            Err(error) => break error,
        }
    };
    assert!(come < 4 << 20, "{come} bytes");
    assert_eq!(error.code(), "SANDBOX_TOOL_TIMEOUT");
    assert!(running.next().await.is_none());
    assert_eq!(
        running.wait().await.unwrap_err().code(),
        "SANDBOX_TOOL_TIMEOUT"
    );
    assert!(sandbox.reset().await.unwrap().is_verified());
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_caller_that_comes_late_finds_what_the_tool_did() {
    let (_scene, sandbox) = booted_as(|scene| scene.limits.tool_grace = SHORT).await;
    let mut events = sandbox.subscribe();
    let invocation = shell("echo done; exit 4").with_deadline(SHORT * 40);
    let mut running = sandbox.start(invocation).await.unwrap();
    // The caller reads nothing meanwhile.
    let ended = told_ended(&mut events).await;
    assert_eq!(ended.unwrap(), ToolOutcome::Exited { code: 4 });
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    let done = running.collect_output(99).await.unwrap();
    assert_eq!(done.stdout.text(), "done\n");
    assert_eq!(done.report.outcome, ToolOutcome::Exited { code: 4 });
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_cancellation_behind_a_standard_input_that_is_stuck_is_given_up_after_the_grace() {
    use tokio::io::AsyncWriteExt;

    let (_scene, sandbox) = booted_as(|scene| scene.limits.tool_grace = SHORT * 4).await;
    let invocation = shell("echo on; sleep 60").with_stdin();
    let mut running = sandbox.start(invocation).await.unwrap();
    running.next().await.unwrap().unwrap();
    let mut stdin = running.stdin().unwrap();
    let stuck = vec![b'x'; 8 << 20];
    let written = tokio::time::timeout(SHORT, stdin.write_all(&stuck)).await;
    assert!(written.is_err(), "the tool read it");
    running.cancel();
    match running.wait().await {
        // The guest may still find a way to report the end.
        Ok(report) => assert_eq!(report.outcome, ToolOutcome::Cancelled),
        Err(error) => {
            assert_eq!(error.code(), "GUEST_QUERY_TIMEOUT", "{error:?}");
            assert_needs_reset(&sandbox, ResetReason::ToolTimedOut);
        }
    }
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_reset_ends_a_run_whether_or_not_it_is_polled() {
    let (_scene, sandbox) = booted().await;
    let mut events = sandbox.subscribe();
    let mut running = idle(&sandbox).await;
    assert!(sandbox.reset().await.unwrap().is_verified());
    let ended = told_ended(&mut events).await;
    assert!(matches!(ended, Err(Error::ResetInterrupted)), "{ended:?}");
    let error = running.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::ResetInterrupted), "{error:?}");
    assert!(running.next().await.is_none());
    drop(running);
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    super::super::assert_echoed(super::super::echo(&sandbox, "after").await, "after");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_ends_a_run_that_waits() {
    let (_scene, sandbox) = booted().await;
    let mut running = idle(&sandbox).await;
    let stdin = running.stdin();
    let (ended, ()) = tokio::join!(running.wait(), sandbox.shutdown());
    assert!(matches!(ended, Err(Error::ShutDown)), "{ended:?}");
    drop(stdin);
}

#[tokio::test]
async fn a_sandbox_that_is_dropped_ends_its_runs() {
    let (_scene, sandbox) = booted().await;
    let mut running = idle(&sandbox).await;
    let _stdin = running.stdin();
    drop(sandbox);
    let ended = running.wait().await;
    assert!(matches!(ended, Err(Error::ShutDown)), "{ended:?}");
}

#[tokio::test]
async fn the_end_of_the_vmm_ends_a_run() {
    let scene = Scene::minted_with(toolbox()).await;
    let stage = scene.stage();
    let sandbox = stage.sandbox(scene.config());
    sandbox.boot().await.unwrap();
    let mut running = idle(&sandbox).await;
    let _stdin = running.stdin();
    stage.serving().kill();
    let error = running.next().await.unwrap().unwrap_err();
    // The connection may close before the VMM's end is noticed.
    assert!(
        matches!(error, Error::VmmEnded(_) | Error::Channel(_)),
        "{error:?}"
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_run_counts_as_a_tool() {
    let scene = Scene::minted_with(toolbox()).await;
    let config = scene.config().tools_per_reset(ToolsPerReset::One);
    let sandbox = Arc::new(scene.sandbox_of(config));
    sandbox.boot().await.unwrap();
    let mut running = sandbox.start(shell("true")).await.unwrap();
    assert_needs_reset(&*sandbox, ResetReason::ToolRan);
    let second = sandbox.start(shell("true")).await.unwrap_err();
    assert!(matches!(second, Error::NeedsReset { .. }), "{second:?}");
    running.wait().await.unwrap();
    assert_needs_reset(&*sandbox, ResetReason::ToolRan);
    assert!(sandbox.reset().await.unwrap().is_verified());
    // A tool that was not sent does not count.
    sandbox.start(tool("")).await.unwrap_err();
    let shared: Arc<dyn Sandbox> = sandbox.clone();
    let report: RunReport = shared
        .start(shell("exit 1"))
        .await
        .unwrap()
        .wait()
        .await
        .unwrap();
    assert_eq!(report.outcome, ToolOutcome::Exited { code: 1 });
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_sandbox_that_is_not_ready_starts_nothing() {
    let scene = Scene::minted_with(toolbox()).await;
    let sandbox = scene.sandbox();
    let error = sandbox.start(shell("true")).await.unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error:?}");
}
