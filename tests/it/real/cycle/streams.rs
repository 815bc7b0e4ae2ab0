//! Tools with streams, and transfers of files, each followed by a verified reset.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use chv_sandbox::sandbox::{
    ChvSandbox, OutputStream, RunningTool, Sandbox, Strategy, ToolInvocation, ToolOutcome,
    TransferOptions,
};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::traces::deadline;
use super::{Stage, Stopwatch};

/// More bytes than all buffers on the way hold together, and no multiple of a buffer's size.
const MUCH: u64 = (24 << 20) + 12_345;

pub(super) async fn carry_what_tools_say_and_files(stage: &Stage) {
    let watch = Stopwatch::start();
    let sandbox = stage.sandbox_with(Strategy::Fresh, 1);
    sandbox.boot().await.unwrap();
    a_shell_is_asked_and_answers(&sandbox).await;
    is_reset(&sandbox).await;
    much_output_comes_whole(&sandbox).await;
    is_reset(&sandbox).await;
    a_cancelled_tool_leaves_no_process(&sandbox).await;
    is_reset(&sandbox).await;
    a_cancellation_races_with_the_end(&sandbox).await;
    is_reset(&sandbox).await;
    files_go_in_and_come_out(&sandbox, stage.folder()).await;
    is_reset(&sandbox).await;
    sandbox.shutdown().await;
    watch.say("streams and files, each run with a verified reset");
}

/// Resets the sandbox. One of the checks is the count of descriptors.
async fn is_reset(sandbox: &ChvSandbox) {
    let reset = sandbox
        .reset()
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    assert!(reset.is_verified());
}

async fn start(sandbox: &ChvSandbox, script: &str) -> RunningTool {
    let invocation = ToolInvocation::new("sh", json!({ "script": script }));
    let invocation = invocation.with_deadline(deadline() * 10).with_stdin();
    sandbox.start(invocation).await.unwrap()
}

async fn a_shell_is_asked_and_answers(sandbox: &ChvSandbox) {
    let mut tool = start(
        sandbox,
        "while read a b; do echo $((a + b)); echo $a >&2; done; exit 7",
    )
    .await;
    let mut stdin = tool.stdin().unwrap();
    for (question, answer) in [("1 2\n", "3\n"), ("40 2\n", "42\n")] {
        stdin.write_all(question.as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
        let mut said = (Vec::new(), Vec::new());
        while said.0.is_empty() || said.1.is_empty() {
            let chunk = tool.next().await.unwrap().unwrap();
            match chunk.stream {
                OutputStream::Stdout => said.0.extend_from_slice(&chunk.bytes),
                OutputStream::Stderr => said.1.extend_from_slice(&chunk.bytes),
            }
        }
        assert_eq!(said.0, answer.as_bytes());
    }
    drop(stdin);
    let report = tool.wait().await.unwrap();
    assert_eq!(report.outcome, ToolOutcome::Exited { code: 7 });
}

/// Bytes of every value, repeated in an order that the test can compute too.
async fn much_output_comes_whole(sandbox: &ChvSandbox) {
    // Each byte value in turn, repeated.
    let script = format!(
        r#"i=0; while [ $i -lt 256 ]; do printf "\\$(printf %03o $i)"; i=$((i + 1)); done > /tmp/all
           for i in 1 2 3 4 5 6 7 8; do cat /tmp/all /tmp/all > /tmp/twice; mv /tmp/twice /tmp/all; done
           while cat /tmp/all; do :; done 2>/dev/null | head -c {MUCH}"#
    );
    let mut tool = start(sandbox, &script).await;
    let mut came = 0;
    while let Some(chunk) = tool.next().await {
        let chunk = chunk.unwrap();
        assert_eq!(chunk.stream, OutputStream::Stdout, "{:?}", chunk.bytes);
        for byte in &chunk.bytes[..] {
            assert_eq!(*byte, came as u8, "byte {came}");
            came += 1;
        }
    }
    assert_eq!(came, MUCH);
    let report = tool.wait().await.unwrap();
    assert!(report.outcome.is_success() && !report.evidence.is_cut);
    assert_eq!(report.evidence.stdout_total, MUCH);
}

/// A process that a tool started may have left the tool's session and lost its parent. It is found by the FIFO that it
/// holds open: while it lives, a writer of the FIFO waits.
async fn a_cancelled_tool_leaves_no_process(sandbox: &ChvSandbox) {
    let script = "mkfifo /tmp/answers
        (setsid sh -c '(setsid sleep 98765 <> /tmp/answers &) ; sleep 98765' >/dev/null 2>&1 &)
        : > /tmp/answers
        echo started; sleep 98765";
    let mut tool = start(sandbox, script).await;
    let chunk = tool.next().await.unwrap().unwrap();
    assert_eq!(&chunk.bytes[..], b"started\n");
    tool.cancel();
    assert_eq!(tool.wait().await.unwrap().outcome, ToolOutcome::Cancelled);
    let look = "timeout 5 sh -c ': > /tmp/answers' && echo there || echo gone";
    let found = start(sandbox, look).await.collect_output(1024).await;
    let found = found.unwrap();
    assert_eq!(found.stdout.text(), "gone\n", "{:?}", found.stderr.text());
}

async fn a_cancellation_races_with_the_end(sandbox: &ChvSandbox) {
    for _ in 0..5 {
        let mut tool = start(sandbox, "exit 3").await;
        tool.cancel();
        let outcome = tool.wait().await.unwrap().outcome;
        let expected = [ToolOutcome::Cancelled, ToolOutcome::Exited { code: 3 }];
        assert!(expected.contains(&outcome), "{outcome}");
    }
}

async fn files_go_in_and_come_out(sandbox: &ChvSandbox, folder: &Path) {
    let tree = folder.join("tree");
    make(&tree);
    let options = TransferOptions::default();
    let pushed = sandbox.push(&tree, "in", &options).await.unwrap();
    let mut tool = start(sandbox, "cd /work && mv in out && find out | wc -l").await;
    let counted = tool.collect_output(1024).await.unwrap();
    assert!(
        counted.report.outcome.is_success(),
        "{}",
        counted.stderr.text()
    );
    let pulled = sandbox
        .pull("out", &folder.join("back"), &options)
        .await
        .unwrap();
    assert_eq!(pulled.files, pushed.files);
    assert_eq!(
        pulled.totals, pushed.totals,
        "the same bytes, names, modes and times"
    );
    for directory in ["tree", "back"] {
        fs::remove_dir_all(folder.join(directory)).unwrap();
    }
}

/// Makes a tree whose names have unusual characters.
fn make(tree: &Path) {
    let long = "n".repeat(255);
    for directory in ["", "-rf", "a b", " ", "deep/er/and/deeper"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    for name in [
        &b"new\nline"[..],
        b"\xff\xfe",
        b"-rf/--",
        b"a b/'\"$(id)",
        long.as_bytes(),
        b"deep/er/.hidden",
    ] {
        let path = tree.join(OsStr::from_bytes(name));
        fs::write(&path, name.repeat(1000)).unwrap();
    }
    fs::write(tree.join("empty"), "").unwrap();
    fs::write(tree.join("tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("deep/er", tree.join("link")).unwrap();
}
