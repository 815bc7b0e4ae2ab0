//! [`ReplaySandbox`], used as the tests of an agent would.

use std::io::{self, Read, Write};

use chv_sandbox::replay::{self, ReplaySandbox};
use chv_sandbox::sandbox::{
    CheckOutcome, CheckSource, Error, ResetVerdict, Sandbox, SandboxState, ToolInvocation,
    ToolOutcome, ToolsPerReset, TransferOptions,
};
use serde_json::json;

fn greet(name: &str) -> ToolInvocation {
    ToolInvocation::new("greet", json!({ "name": name }))
}

fn replay(resets: usize) -> replay::ReplayBuilder {
    ReplaySandbox::verified()
        .resets(resets)
        .tool("greet", |run| {
            let name = run.params["name"]
                .as_str()
                .ok_or(io::ErrorKind::InvalidInput)?;
            writeln!(run.stdout, "hello, {name}")?;
            Ok(0)
        })
}

#[tokio::test]
async fn every_reset_is_verified_and_every_tool_is_the_tests() {
    let replay = replay(3).start().await.unwrap();
    let sandbox = replay.sandbox();
    sandbox.boot().await.unwrap();
    for name in ["Ada", "Grace", "Edsger"] {
        let ran = sandbox.run_once(greet(name)).await.unwrap();
        assert_eq!(ran.execution.stdout.text(), format!("hello, {name}\n"));
        assert!(ran.reset.is_verified());
    }
    let failed = sandbox
        .execute_tool(ToolInvocation::new("greet", json!({})))
        .await;
    let failed = failed.unwrap();
    assert_eq!(failed.outcome, ToolOutcome::Exited { code: 1 });
    assert!(
        failed.stderr.text().contains("invalid"),
        "{:?}",
        failed.stderr.text()
    );
    replay.finish().await.unwrap();
    assert!(matches!(sandbox.state(), SandboxState::NotBooted));
}

#[tokio::test]
async fn a_tool_of_the_test_has_streams() {
    let replay = ReplaySandbox::verified()
        .resets(1)
        .tool("upper", |run| {
            let mut text = String::new();
            run.stdin.read_to_string(&mut text)?;
            run.stdout.write_all(text.to_uppercase().as_bytes())?;
            Ok(7)
        })
        .start()
        .await
        .unwrap();
    let sandbox = replay.sandbox();
    sandbox.boot().await.unwrap();
    let invocation = ToolInvocation::new("upper", json!({})).with_stdin();
    let mut tool = sandbox.start(invocation).await.unwrap();
    let mut stdin = tool.stdin().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"quiet")
        .await
        .unwrap();
    drop(stdin);
    let mut said = Vec::new();
    while let Some(output) = tool.next().await {
        said.extend_from_slice(&output.unwrap().bytes);
    }
    assert_eq!(said, b"QUIET");
    let report = tool.wait().await.unwrap();
    assert_eq!(report.outcome, ToolOutcome::Exited { code: 7 });
    assert!(sandbox.reset().await.unwrap().is_verified());
    replay.finish().await.unwrap();
}

#[tokio::test]
async fn the_last_reset_may_diverge() {
    let replay = replay(1).then_a_divergence().start().await.unwrap();
    let sandbox = replay.sandbox();
    sandbox.boot().await.unwrap();
    assert!(sandbox.reset().await.unwrap().is_verified());
    let Err(Error::ResetDivergence(failed)) = sandbox.reset().await else {
        panic!("it diverges");
    };
    assert_eq!(failed.outcome.verdict(), ResetVerdict::Failed);
    let checks = failed.outcome.report.checks.iter();
    let disagreed = checks.filter(|check| check.outcome == CheckOutcome::Disagreed);
    let disagreed: Vec<_> = disagreed.map(|check| check.source).collect();
    assert_eq!(disagreed, [CheckSource::OpenFdCount]);
    assert!(matches!(sandbox.state(), SandboxState::Halted { .. }));
    replay.finish().await.unwrap();
}

#[tokio::test]
async fn the_vmm_may_end_at_the_last_reset() {
    let replay = replay(1).then_the_vmm_ends().start().await.unwrap();
    let sandbox = replay.sandbox();
    sandbox.boot().await.unwrap();
    assert!(sandbox.reset().await.unwrap().is_verified());
    let error = sandbox.reset().await.unwrap_err();
    assert!(matches!(error, Error::ResetFailed(_)), "{error:?}");
    assert!(matches!(sandbox.state(), SandboxState::Failed { .. }));
    replay.finish().await.unwrap();
}

#[tokio::test]
async fn a_reset_removes_pushed_files() {
    let replay = replay(1).start().await.unwrap();
    let sandbox = replay.sandbox();
    sandbox.boot().await.unwrap();
    let pushed = tempfile::tempdir().unwrap();
    std::fs::write(pushed.path().join("file"), "content").unwrap();
    let options = TransferOptions::default();
    let push = || sandbox.push(pushed.path(), "in", &options);
    push().await.unwrap();
    let kept = replay.directory().join("files/in/file");
    assert_eq!(std::fs::read(&kept).unwrap(), b"content");
    let error = push().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_FILE_NAME");
    sandbox.reset().await.unwrap();
    assert!(!kept.exists());
    push().await.unwrap();
    replay.finish().await.unwrap();
}

#[tokio::test]
async fn a_directory_for_files_that_no_guest_could_have_is_refused() {
    for wrong in ["relative", "/out/../of/it"] {
        let error = replay(0).files(wrong).start().await.unwrap_err();
        assert!(
            matches!(&error, replay::Error::Files { directory, .. } if directory.as_os_str() == wrong),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn another_number_of_resets_than_declared_fails_at_the_end() {
    let too_few = replay(2).start().await.unwrap();
    too_few.sandbox().boot().await.unwrap();
    too_few.sandbox().reset().await.unwrap();
    // A shutdown begins with the same calls as a reset, so the reset that is missing shows as a leftover.
    let error = too_few.finish().await.unwrap_err();
    assert!(matches!(error, replay::Error::Leftover { .. }), "{error:?}");

    let none = replay(0).start().await.unwrap();
    let error = none.finish().await.unwrap_err();
    assert!(matches!(error, replay::Error::Leftover { .. }), "{error:?}");

    let too_many = replay(0).start().await.unwrap();
    too_many.sandbox().boot().await.unwrap();
    too_many.sandbox().reset().await.unwrap_err();
    let error = too_many.finish().await.unwrap_err();
    assert!(matches!(error, replay::Error::Mismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn the_configuration_is_the_tests() {
    let replay = replay(0)
        .configure(|config| config.tools_per_reset(ToolsPerReset::Many))
        .start()
        .await
        .unwrap();
    let sandbox = replay.sandbox();
    sandbox.boot().await.unwrap();
    for _ in 0..2 {
        assert!(
            sandbox
                .execute_tool(greet("Ada"))
                .await
                .unwrap()
                .is_success()
        );
    }
    replay.finish().await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_one_that_is_dropped() {
    let replay = replay(1).start().await.unwrap();
    let folder = replay.directory().to_owned();
    assert!(folder.is_dir());
    drop(replay);
    assert!(!folder.exists());
}
