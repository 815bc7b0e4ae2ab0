//! Runs of other implementations: the stub's, those that a controller plays, and the blocking interface to both.

use std::future::pending;
use std::io::Write;
use std::sync::Arc;

use chv_sandbox::blocking;
use chv_sandbox::sandbox::{OutputStream, RunInput, RunSignal, StubSandbox};
use tokio::io::AsyncWriteExt;

use super::*;

async fn stub() -> StubSandbox {
    let stub = StubSandbox::default().with_tool("idle", async |_run| pending().await);
    stub.boot().await.unwrap();
    stub
}

#[tokio::test]
async fn a_stubs_tools_are_closures_executed_or_with_streams() {
    let sandbox = stub().await.with_tool("upper", async |mut run| {
        while let Some(bytes) = run.read_stdin().await {
            run.stdout(bytes.to_ascii_uppercase()).await;
        }
        run.stderr(run.params()["note"].as_str().unwrap_or("none").to_owned())
            .await;
        ToolOutcome::Exited { code: 3 }
    });
    let invocation = ToolInvocation::new("upper", json!({ "note": "n" }));
    let execution = sandbox.execute_tool(invocation.clone()).await.unwrap();
    assert_eq!(execution.exit_code(), 3);
    assert_eq!(execution.stderr.text(), "n");

    let mut running = sandbox.start(invocation.with_stdin()).await.unwrap();
    let mut stdin = running.stdin().unwrap();
    stdin.write_all(b"shout").await.unwrap();
    stdin.shutdown().await.unwrap();
    let done = running.collect_output(99).await.unwrap();
    assert_eq!(done.stdout.text(), "SHOUT");
    assert_eq!(done.report.outcome, ToolOutcome::Exited { code: 3 });
}

#[tokio::test]
async fn a_stubs_run_ends_as_a_guests_does() {
    let sandbox = stub().await;
    let mut events = sandbox.subscribe();
    let mut cancelled = sandbox.start(tool("idle")).await.unwrap();
    cancelled.cancel();
    assert_eq!(
        cancelled.wait().await.unwrap().outcome,
        ToolOutcome::Cancelled
    );
    assert_eq!(
        told_ended(&mut events).await.unwrap(),
        ToolOutcome::Cancelled
    );

    let late = tool("idle").with_deadline(SHORT);
    let late = sandbox.execute_tool(late).await.unwrap();
    assert_eq!(late.outcome, ToolOutcome::DeadlineExceeded);

    let unknown = sandbox.start(tool("nothing")).await.unwrap().wait().await;
    assert_eq!(unknown.unwrap().outcome, ToolOutcome::NoSuchTool);
    let refused = sandbox.execute_tool(tool("echo")).await.unwrap();
    assert!(matches!(refused.outcome, ToolOutcome::Refused { .. }));
    assert!(refused.stderr.text().contains("message"));

    let mut interrupted = sandbox.start(tool("idle")).await.unwrap();
    sandbox.reset().await.unwrap();
    let error = interrupted.wait().await.unwrap_err();
    assert!(matches!(error, Error::ResetInterrupted), "{error:?}");
    let mut ended = sandbox.start(tool("idle")).await.unwrap();
    sandbox.shutdown().await;
    let error = ended.wait().await.unwrap_err();
    assert!(matches!(error, Error::ShutDown), "{error:?}");
    let error = sandbox.start(tool("idle")).await.unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error:?}");
}

#[tokio::test]
async fn a_tool_of_a_stub_that_panics_breaks_its_run_off() {
    let sandbox = stub()
        .await
        .with_tool("panics", async |_run| panic!("as the test asked"));
    let error = sandbox.start(tool("panics")).await.unwrap().wait().await;
    assert_eq!(error.unwrap_err().code(), "SANDBOX_VSOCK_CLOSED");
}

#[tokio::test]
async fn a_controller_plays_a_tool() {
    let invocation = tool("played").with_stdin();
    let (mut running, mut controller) = RunningTool::with_controller(&invocation).unwrap();
    let mut stdin = running.stdin().unwrap();
    let large = vec![b'y'; 600_000];
    let play = async {
        assert_eq!(
            controller.input.next().await,
            Some(RunInput::Stdin(b"in".as_slice().into()))
        );
        controller
            .output
            .write(OutputStream::Stderr, &large)
            .await
            .unwrap();
        assert_eq!(controller.input.next().await, Some(RunInput::EndOfStdin));
        let signal = controller.input.next().await;
        assert_eq!(signal, Some(RunInput::Signal(RunSignal::Terminate)));
        let end = controller.output.end(ToolOutcome::Signalled { signal: 15 });
        end.await.unwrap();
        controller.input
    };
    let host = async {
        stdin.write_all(b"in").await.unwrap();
        drop(stdin);
        running.signal(RunSignal::Terminate);
        running.collect_output(usize::MAX).await.unwrap()
    };
    let (mut input, done) = tokio::join!(play, host);
    assert!(done.stderr.bytes() == large, "the output differs");
    assert_eq!(done.report.outcome, ToolOutcome::Signalled { signal: 15 });
    drop(running);
    assert_eq!(input.next().await, None);
}

#[tokio::test]
async fn a_controller_can_fail_its_run_or_leave_it() {
    let (mut running, controller) = RunningTool::with_controller(&tool("fails")).unwrap();
    let fail = async { controller.output.fail(Error::ResetInterrupted) };
    let (ended, ()) = tokio::join!(running.wait(), fail);
    assert!(matches!(ended, Err(Error::ResetInterrupted)), "{ended:?}");

    let (mut running, controller) = RunningTool::with_controller(&tool("leaves")).unwrap();
    drop(controller);
    let error = running.wait().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_VSOCK_CLOSED");

    let (running, mut controller) = RunningTool::with_controller(&tool("left")).unwrap();
    drop(running);
    let written = controller.output.write(OutputStream::Stdout, b"x").await;
    assert!(written.is_err());

    let outcome = ToolOutcome::Unspecified { exit_code: 9 };
    let (mut running, controller) = RunningTool::with_controller(&tool("odd")).unwrap();
    let (ended, told) = tokio::join!(running.wait(), controller.output.end(outcome));
    told.unwrap();
    let outcome = ended.unwrap().outcome;
    assert!(
        matches!(outcome, ToolOutcome::GuestFailed { .. }),
        "{outcome}"
    );
}

#[test]
fn a_thread_reads_writes_and_cancels() {
    let stub = StubSandbox::default().with_tool("idle", async |_run| pending().await);
    let sandbox = blocking::Sandbox::of(Arc::new(stub)).unwrap();
    sandbox.boot().unwrap();
    let mut running = sandbox.start(tool("copy").with_stdin()).unwrap();
    let mut stdin = running.stdin().unwrap();
    let writer = std::thread::spawn(move || {
        stdin.write_all(&vec![b'z'; 1 << 20]).unwrap();
        stdin.flush().unwrap();
    });
    let mut come = 0;
    for chunk in &mut running {
        come += chunk.unwrap().bytes.len();
    }
    writer.join().unwrap();
    assert_eq!(come, 1 << 20);
    assert!(running.wait().unwrap().outcome.is_success());

    let mut running = sandbox.start(tool("idle")).unwrap();
    running.cancel();
    let done = running.collect_output(9).unwrap();
    assert_eq!(done.report.outcome, ToolOutcome::Cancelled);
    sandbox.shutdown();
}
