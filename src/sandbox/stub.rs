//! A sandbox made of nothing, for the development of an agent where no VM can run.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;

use super::{
    Backend, Error, Event, Reset, ResetOutcome, ResetReport, Sandbox, SandboxState, StrategyUsed,
    ToolExecution, ToolInvocation, ToolOutcome, VmmApiState, WireState,
};
use crate::broadcast::{self, Capacity};
use crate::guest::protocol::ToolDispatch;
use crate::machine::Steps;

/// How far a slow subscriber may fall behind.
const EVENTS: Capacity = Capacity {
    count: 64,
    bytes: 1 << 20,
};

/// A sandbox that runs no VM. It answers the tool `echo`, knows no other, and isolates nothing. Its resets are
/// [`Reset::Scaffold`], never verified.
#[derive(Debug)]
pub struct StubSandbox {
    state: Mutex<SandboxState>,
    events: broadcast::Sender<Event>,
}

impl Default for StubSandbox {
    fn default() -> Self {
        StubSandbox {
            state: Mutex::new(SandboxState::NotBooted),
            events: broadcast::Sender::new(EVENTS),
        }
    }
}

impl StubSandbox {
    fn set(&self, state: SandboxState) {
        let current = self.state.lock();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        if current.wire() != state.wire() {
            current.clone_from(&state);
            self.events.send(Event::State(state));
        }
    }

    fn check_ready(&self, action: &'static str) -> Result<(), Error> {
        match self.state().wire() {
            WireState::Ready => Ok(()),
            state => Err(Error::NotReady { action, state }),
        }
    }
}

#[async_trait]
impl Sandbox for StubSandbox {
    async fn boot(&self) -> Result<(), Error> {
        self.set(SandboxState::Ready);
        Ok(())
    }

    async fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error> {
        self.check_ready("run a tool")?;
        let dispatch = ToolDispatch::try_from(invocation)?;
        let refused = |outcome, why: &str| ToolExecution::new(outcome, "", why);
        Ok(
            match (dispatch.tool.as_str(), &dispatch.params["message"]) {
                ("echo", Value::String(message)) => {
                    ToolExecution::new(ToolOutcome::Exited { code: 0 }, format!("{message}\n"), "")
                }
                ("echo", _) => {
                    let reason = "echo takes the parameter \"message\", a string";
                    refused(
                        ToolOutcome::Refused {
                            reason: reason.to_owned(),
                        },
                        reason,
                    )
                }
                _ => refused(
                    ToolOutcome::NoSuchTool,
                    "the stub knows no tool but echo {message}\n",
                ),
            },
        )
    }

    async fn reset(&self) -> Result<Reset, Error> {
        self.check_ready("be reset")?;
        self.set(SandboxState::Resetting);
        let report = ResetReport::unverified(StrategyUsed::Nothing, None, &Steps::start());
        let outcome = ResetOutcome::unverified(VmmApiState::Running, report);
        self.set(SandboxState::Ready);
        self.events.send(Event::Reset(Arc::new(outcome.clone())));
        Ok(Reset::Scaffold(outcome))
    }

    async fn shutdown(&self) {
        self.set(SandboxState::NotBooted);
    }

    fn state(&self) -> SandboxState {
        let state = self.state.lock();
        state.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn backend(&self) -> Backend {
        Backend::Stub
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
