//! The test kills the VMM of a sandbox.

use chv_sandbox::sandbox::{ChvSandbox, Event, Sandbox, SandboxState, ToolInvocation, WireState};
use chv_sandbox::vmm::Exit;
use serde_json::json;

use super::{Stage, Stopwatch, told};
use crate::real::{assert_nothing_left, kill, processes_with_files_in};

pub(super) async fn is_noticed_and_mended(stage: &Stage) {
    let sandbox = stage.sandbox();
    sandbox.boot().await.unwrap();

    let mut events = sandbox.subscribe();
    let pid = the_vmm(stage);
    let watch = Stopwatch::start();
    kill(pid);
    let ended = told(&mut events, |event| match event {
        Event::VmmEnded(ended) => Some(ended.clone()),
        _ => None,
    });
    let ended = ended.await;
    watch.say("killed while idle: noticed");
    assert_eq!((ended.pid, ended.exit), (pid, Exit::Signal(9)));
    assert_eq!(sandbox.state().wire(), WireState::Failed);
    let refused = sandbox.execute_tool(echo()).await.unwrap_err();
    assert_eq!(refused.code(), "SANDBOX_NOT_READY");
    boot_again(&sandbox).await;

    let mut events = sandbox.subscribe();
    let pid = the_vmm(stage);
    let killed = told(&mut events, |event| match event {
        Event::State(SandboxState::Resetting) => {
            kill(pid);
            Some(())
        }
        _ => None,
    });
    let (reset, ()) = tokio::join!(sandbox.reset(), killed);
    let error = reset.unwrap_err();
    println!("killed during a reset: {error:?}");
    assert_eq!(error.code(), "SANDBOX_RESET_FAILED");
    assert_eq!(sandbox.state().wire(), WireState::Failed);
    boot_again(&sandbox).await;

    sandbox.shutdown().await;
    assert_nothing_left(stage.folder());
}

/// The pid of the only VMM that runs.
fn the_vmm(stage: &Stage) -> u32 {
    match processes_with_files_in(&stage.vmm.run_root)[..] {
        [pid] => pid,
        ref pids => panic!("not one VMM: {pids:?}"),
    }
}

async fn boot_again(sandbox: &ChvSandbox) {
    let watch = Stopwatch::start();
    sandbox.boot().await.unwrap();
    watch.say("booted again");
    let answer = sandbox.execute_tool(echo()).await.unwrap();
    assert_eq!(answer.stdout.text(), "hello\n", "{answer:?}");
}

fn echo() -> ToolInvocation {
    ToolInvocation::new("echo", json!({ "message": "hello" }))
        .with_deadline(super::traces::deadline())
}
