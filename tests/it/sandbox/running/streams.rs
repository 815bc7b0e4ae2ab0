//! The streams of a tool: standard input, its output, and signals.

use std::io;

use chv_sandbox::sandbox::{OutputStream, RunSignal, ToolRefusal};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use super::*;

/// Reads until `length` bytes of one stream have come.
async fn read(running: &mut RunningTool, wanted: OutputStream, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let chunk = running.next().await.expect("more comes").unwrap();
        assert_eq!(chunk.stream, wanted);
        bytes.extend_from_slice(&chunk.bytes);
    }
    bytes
}

#[tokio::test]
async fn a_shell_that_asks_is_answered() {
    let (_scene, sandbox) = booted().await;
    let script = r#"echo -n "name? "; read name; echo "hello $name" >&2; exit 7"#;
    let mut running = sandbox.start(shell(script).with_stdin()).await.unwrap();
    let mut stdin = running.stdin().unwrap();
    assert!(running.stdin().is_none(), "it is given once");
    assert_eq!(read(&mut running, OutputStream::Stdout, 6).await, b"name? ");
    stdin.write_all(b"world\n").await.unwrap();
    let answer = read(&mut running, OutputStream::Stderr, 12).await;
    assert_eq!(answer, b"hello world\n");
    assert!(running.next().await.is_none());
    let report = running.wait().await.unwrap();
    assert_eq!(report.outcome, ToolOutcome::Exited { code: 7 });
    let totals = (report.evidence.stdout_total, report.evidence.stderr_total);
    assert_eq!(totals, (6, 12));
    assert!(!report.evidence.is_cut);

    // The tool has ended.
    let late = stdin.write_all(b"more").await.unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
    stdin.shutdown().await.unwrap();
    running.cancel();
    assert_eq!(running.wait().await.unwrap(), report, "it is said again");
    assert!(running.next().await.is_none());
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    sandbox.shutdown().await;
}

#[tokio::test]
async fn more_than_all_buffers_hold_comes_back_to_the_byte() {
    let (_scene, sandbox) = booted().await;
    let bytes: Vec<u8> = (0..6_000_000_u32)
        .map(|at| (at ^ (at >> 11)) as u8)
        .collect();
    let mut running = sandbox.start(tool("copy").with_stdin()).await.unwrap();
    let mut stdin = running.stdin().unwrap();
    let send = async {
        stdin.write_all(&bytes).await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let (done, ()) = tokio::join!(running.collect_output(usize::MAX), send);
    let done = done.unwrap();
    assert!(done.stdout.bytes() == bytes, "the bytes differ");
    assert_eq!(done.stdout.total(), Some(bytes.len() as u64));
    assert_eq!(done.report.outcome, ToolOutcome::Exited { code: 0 });
    sandbox.shutdown().await;
}

#[tokio::test]
async fn output_that_is_not_kept_is_counted() {
    let (_scene, sandbox) = booted().await;
    let script = "printf 0123456789; printf error >&2";
    let mut running = sandbox.start(shell(script)).await.unwrap();
    assert!(running.stdin().is_none(), "it was not asked for");
    let done = running.collect_output(4).await.unwrap();
    assert_eq!(done.stdout.text(), "0123");
    assert_eq!(
        (done.stdout.total(), done.stdout.is_cut()),
        (Some(10), Some(true))
    );
    assert_eq!(done.stderr.text(), "erro");
    let shown = format!("{running:?} {done:?}");
    assert!(
        !shown.contains("0123") && !shown.contains("erro\""),
        "{shown}"
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_run_is_a_stream_of_its_output() {
    let (_scene, sandbox) = booted().await;
    let running = sandbox.start(shell("echo out")).await.unwrap();
    let chunks: Vec<Result<OutputChunk, Error>> = StreamExt::collect(running).await;
    let text: Vec<u8> = chunks
        .into_iter()
        .flat_map(|it| it.unwrap().bytes)
        .collect();
    assert_eq!(text, b"out\n");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn waiting_ends_a_standard_input_that_nothing_writes_to() {
    let (_scene, sandbox) = booted().await;
    let mut running = idle(&sandbox).await;
    let report = running.wait().await.unwrap();
    assert!(report.outcome.is_success());
    sandbox.shutdown().await;
}

#[tokio::test]
async fn output_comes_while_standard_input_is_stuck() {
    let (_scene, sandbox) = booted().await;
    let script = "echo ready; read line; echo \"$line\"; exec sleep 60";
    let mut running = sandbox.start(shell(script).with_stdin()).await.unwrap();
    assert_eq!(
        read(&mut running, OutputStream::Stdout, 6).await,
        b"ready\n"
    );
    let mut stdin = running.stdin().unwrap();
    stdin.write_all(b"go\n").await.unwrap();
    let stuck = vec![b'x'; 8 << 20];
    let output = tokio::select! {
        written = stdin.write_all(&stuck) => panic!("it was taken: {written:?}"),
        output = read(&mut running, OutputStream::Stdout, 3) => output,
    };
    assert_eq!(output, b"go\n");
    drop(running);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn environment_and_directory_reach_the_tool_as_far_as_it_may_have_them() {
    let (_scene, sandbox) = booted().await;
    let script = "echo $GREETING; pwd";
    let invocation = shell(script).with_env("GREETING", "hi").with_directory("/");
    assert!(
        !format!("{invocation:?}").contains("hi\""),
        "{invocation:?}"
    );
    let done = sandbox
        .start(invocation)
        .await
        .unwrap()
        .collect_output(99)
        .await;
    assert_eq!(done.unwrap().stdout.text(), "hi\n/\n");

    // The guest refuses a variable that its tools file doesn't allow, and says so.
    let refused = ToolInvocation::new("whoami", json!({})).with_env("GREETING", "hi");
    let mut refused = sandbox.start(refused).await.unwrap();
    let outcome = refused.wait().await.unwrap().outcome;
    assert!(matches!(outcome, ToolOutcome::Refused { .. }), "{outcome}");
    let unknown = sandbox
        .start(tool("no such tool"))
        .await
        .unwrap()
        .wait()
        .await;
    assert_eq!(unknown.unwrap().outcome, ToolOutcome::NoSuchTool);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn settings_that_no_tool_can_have_are_refused_unsent() {
    let (_scene, sandbox) = booted().await;
    let refused = async |invocation: ToolInvocation| {
        let error = sandbox.start(invocation).await.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_TOOL_REFUSED");
        match error {
            Error::ToolRefused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    };
    for name in ["", "1A", "A-B", "A=B", "É"] {
        let refusal = refused(shell("true").with_env(name, "x")).await;
        assert!(matches!(refusal, ToolRefusal::Environment(_)), "{name}");
    }
    let nul = refused(shell("true").with_env("A", "x\0y")).await;
    assert!(matches!(nul, ToolRefusal::Environment(_)));
    let large = refused(shell("true").with_env("A", "x".repeat(32 << 10))).await;
    assert!(matches!(large, ToolRefusal::Environment(_)));
    let nameless = refused(tool("").with_stdin()).await;
    assert!(matches!(nameless, ToolRefusal::Name(_)));
    let huge = ToolInvocation::new("sh", json!({ "script": "x".repeat(17 << 20) }));
    assert!(matches!(refused(huge).await, ToolRefusal::TooLarge(_)));

    for with_streams in [
        shell("true").with_stdin(),
        shell("true").with_env("A", "b"),
        shell("true").with_directory("/"),
    ] {
        let error = sandbox.execute_tool(with_streams).await.unwrap_err();
        assert!(
            matches!(error, Error::ToolRefused(ToolRefusal::NeedsStreams)),
            "{error:?}"
        );
    }
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_signal_ends_a_tool_or_is_the_tools_to_handle() {
    let (_scene, sandbox) = booted().await;
    // The signal reaches the shell before it can see the end of the process that it waits for.
    let script =
        "sleep 60 & first=$!; for i in $(seq 50); do sleep 60 & done; echo on; wait $first";
    let mut running = sandbox.start(shell(script)).await.unwrap();
    read(&mut running, OutputStream::Stdout, 3).await;
    running.signal(RunSignal::Terminate);
    assert_eq!(
        running.wait().await.unwrap().outcome,
        ToolOutcome::Cancelled
    );

    let script = "trap 'echo caught; exit 3' TERM; echo on; while :; do :; done";
    let mut running = sandbox.start(shell(script)).await.unwrap();
    read(&mut running, OutputStream::Stdout, 3).await;
    running.signal(RunSignal::Terminate);
    assert_eq!(
        read(&mut running, OutputStream::Stdout, 7).await,
        b"caught\n"
    );
    let report = running.wait().await.unwrap();
    assert_eq!(report.outcome, ToolOutcome::Exited { code: 3 });
    sandbox.shutdown().await;
}

#[tokio::test]
async fn nine_runs_at_once_are_one_too_many() {
    let (_scene, sandbox) = booted().await;
    let mut runs = Vec::new();
    for number in 0..8 {
        let invocation = tool("idle")
            .with_stdin()
            .with_command_id(number.to_string());
        runs.push(sandbox.start(invocation).await.unwrap());
    }
    let ninth = sandbox.start(shell("true")).await.unwrap_err();
    assert_eq!(ninth.code(), "SANDBOX_TOO_MANY_STREAMS");
    assert_eq!(ninth.advice(), chv_sandbox::sandbox::Advice::Retry);
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    // A tool that doesn't need a connection of its own still runs, and so do the nine.
    super::super::assert_echoed(super::super::echo(&sandbox, "beside").await, "beside");
    for mut run in runs {
        assert!(run.wait().await.unwrap().outcome.is_success());
    }
    sandbox.shutdown().await;
}

#[tokio::test]
async fn two_runs_of_one_name_at_once_are_refused_and_harm_nothing() {
    let (_scene, sandbox) = booted().await;
    let mut first = idle(&sandbox).await;
    let second = sandbox.start(tool("idle")).await.unwrap_err();
    assert_eq!(second.code(), "SANDBOX_VSOCK_DUPLICATE_REQUEST");
    assert!(first.wait().await.unwrap().outcome.is_success());
    assert!(matches!(sandbox.state(), SandboxState::Ready));
    // The name can be used again once the run has ended.
    idle(&sandbox).await.wait().await.unwrap();
    drop(first);
    sandbox.shutdown().await;
}
