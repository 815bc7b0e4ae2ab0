//! The agent of `examples/agent.rs`, on a scripted VMM and with every error that it may meet.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chv_sandbox::broadcast;
use chv_sandbox::sandbox::{
    Advice, Backend, Error, Event, Reset, ResetReason, RunningTool, Sandbox, SandboxState,
    StubSandbox, ToolExecution, ToolInvocation, TransferOptions, TransferReport, WireState,
};
use serde_json::json;

use super::Scene;

#[path = "../../../examples/agent.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a program")]
mod program;

fn jobs() -> Vec<ToolInvocation> {
    let say = |message| ToolInvocation::new("echo", json!({ "message": message }));
    ["one", "two", "three"].map(say).to_vec()
}

#[tokio::test]
async fn it_runs_each_job_in_a_clean_sandbox() {
    let scene = Scene::minted().await;
    let sandbox = scene.sandbox();
    assert_eq!(program::work(&sandbox, jobs()).await.unwrap(), 3);
    sandbox.shutdown().await;
    scene.assert_machine_is_empty();
}

/// A stub that fails as it is told, and records the calls that it receives.
#[derive(Default)]
struct Failing {
    stub: StubSandbox,
    errors: Mutex<VecDeque<Error>>,
    asked: Mutex<Vec<&'static str>>,
}

impl Failing {
    fn note(&self, asked: &'static str) {
        self.asked.lock().unwrap().push(asked);
    }
}

#[async_trait]
impl Sandbox for Failing {
    async fn boot(&self) -> Result<(), Error> {
        self.note("boot");
        self.stub.boot().await
    }

    async fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error> {
        self.note("tool");
        let error = self.errors.lock().unwrap().pop_front();
        match error {
            Some(error) => Err(error),
            None => self.stub.execute_tool(invocation).await,
        }
    }

    async fn start(&self, invocation: ToolInvocation) -> Result<RunningTool, Error> {
        self.note("start");
        self.stub.start(invocation).await
    }

    async fn push(
        &self,
        local: &Path,
        path: &str,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        self.stub.push(local, path, options).await
    }

    async fn pull(
        &self,
        path: &str,
        local: &Path,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        self.stub.pull(path, local, options).await
    }

    async fn reset(&self) -> Result<Reset, Error> {
        self.note("reset");
        self.stub.reset().await
    }

    async fn shutdown(&self) {
        self.note("shutdown");
        self.stub.shutdown().await;
    }

    fn state(&self) -> SandboxState {
        self.stub.state()
    }

    fn backend(&self) -> Backend {
        self.stub.backend()
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.stub.subscribe()
    }
}

#[tokio::test(start_paused = true)]
async fn it_does_as_the_advice_says() {
    async fn check(error: Error, advice: Advice, done: Option<usize>, asked: &[&str]) {
        assert_eq!(error.advice(), advice, "{error:?}");
        let sandbox = Arc::new(Failing::default());
        sandbox.errors.lock().unwrap().push_back(error);
        let worked = program::work(&*sandbox, jobs()).await;
        assert_eq!(worked.ok(), done, "{advice}");
        let found = sandbox.asked.lock().unwrap();
        assert_eq!(found[..asked.len()], *asked, "{advice}");
    }

    let not_ready = |state| Error::NotReady {
        action: "run a tool",
        state,
    };
    let resetting = not_ready(WireState::Resetting);
    check(
        resetting,
        Advice::Retry,
        Some(3),
        &["boot", "tool", "tool", "reset"],
    )
    .await;
    let needs_reset = Error::NeedsReset {
        reason: ResetReason::ChannelBroken,
    };
    check(
        needs_reset,
        Advice::Reset,
        Some(3),
        &["boot", "tool", "reset", "tool"],
    )
    .await;
    let failed = not_ready(WireState::Failed);
    let rebuilt = ["boot", "tool", "shutdown", "boot", "tool"];
    check(failed, Advice::Rebuild, Some(3), &rebuilt).await;
    let nameless = StubSandbox::default();
    nameless.boot().await.unwrap();
    let refused = nameless
        .execute_tool(ToolInvocation::new("", json!({})))
        .await;
    let refused = refused.unwrap_err();
    check(
        refused,
        Advice::SkipTool,
        Some(2),
        &["boot", "tool", "tool", "reset"],
    )
    .await;
    check(Error::PoolClosed, Advice::GiveUp, None, &["boot", "tool"]).await;
}
