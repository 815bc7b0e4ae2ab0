//! Tools with streams, in a sandbox whose guest is the stand-in.

mod ends;
mod hostile;
mod made;
mod streams;

use std::time::Duration;

use chv_sandbox::broadcast;
use chv_sandbox::guest::dispatcher::Toolbox;
use chv_sandbox::sandbox::{
    ChvSandbox, Error, Event, OutputChunk, ResetReason, RunReport, RunningTool, Sandbox,
    SandboxState, ToolInvocation, ToolOutcome,
};
use serde_json::json;

use super::{PATIENCE, Scene, told};

/// A time so short that a test can wait for it to pass.
const SHORT: Duration = Duration::from_millis(50);

/// The tools that these tests need beside the built-in ones and the shell.
fn toolbox() -> Toolbox {
    use std::io::{Read, Write};

    let built_in = Toolbox::built_in().with_shell();
    let built_in = built_in.with_function("flood", |run| {
        let bytes = vec![b'x'; 64 << 10];
        while run.stdout.write_all(&bytes).is_ok() {}
        0
    });
    let built_in = built_in.with_function("copy", |run| {
        let mut bytes = vec![0; 64 << 10];
        loop {
            match run.stdin.read(&mut bytes) {
                Ok(0) | Err(_) => return 0,
                Ok(read) => run.stdout.write_all(&bytes[..read]).unwrap(),
            }
        }
    });
    built_in.with_function("idle", |run| {
        // This tool ends with its standard input, which a test keeps open.
        let _ = std::io::copy(&mut run.stdin, &mut std::io::sink());
        0
    })
}

async fn booted() -> (Scene, ChvSandbox) {
    booted_as(|_| ()).await
}

async fn booted_as(change: impl FnOnce(&mut Scene)) -> (Scene, ChvSandbox) {
    let mut scene = Scene::minted_with(toolbox()).await;
    change(&mut scene);
    let sandbox = scene.sandbox();
    sandbox.boot().await.unwrap();
    (scene, sandbox)
}

fn tool(name: &str) -> ToolInvocation {
    ToolInvocation::new(name, json!({}))
        .with_command_id(name)
        .with_deadline(PATIENCE)
}

fn shell(script: &str) -> ToolInvocation {
    ToolInvocation::new("sh", json!({ "script": script })).with_deadline(PATIENCE)
}

/// A tool that runs until it is told to end.
async fn idle(sandbox: &dyn Sandbox) -> RunningTool {
    sandbox.start(tool("idle").with_stdin()).await.unwrap()
}

/// Waits for the event of a tool's end, and returns its outcome.
async fn told_ended(events: &mut broadcast::Receiver<Event>) -> Result<ToolOutcome, Error> {
    told(events, |event| match event {
        Event::ToolEnded { result, .. } => Some(result.clone()),
        _ => None,
    })
    .await
}

#[track_caller]
fn assert_needs_reset(sandbox: &dyn Sandbox, expected: ResetReason) {
    let state = sandbox.state();
    assert!(
        matches!(state, SandboxState::NeedsReset { reason } if reason == expected),
        "{state:?}"
    );
}
