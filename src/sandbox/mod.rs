//! The sandbox as an agent sees it: boot, run a tool, revert and prove it, shut down.
//!
//! ```text
//!                boot                       reset
//!  not_booted ---------> booting ---> ready ------> resetting
//!       ^                   |          | ^              |  |
//!       |                   | failed   | |   verified   |  | failed, diverged, silent twice
//!       |                   v          | +--------------+  v
//!       |                 failed <-----+----------------- failed
//!       |                   |        the VMM died
//!       +-------------------+-- shutdown, from every state
//! ```
//!
//! A reset that failed may be tried again; after a divergence or a time-out the sandbox is *halted*: it takes
//! nothing but `shutdown`.

mod chv;
mod config;
mod error;
mod event;
mod evidence;
mod guest;
mod report;
mod reset_state;
mod span;
mod strategy;
mod stub;
mod tool;
mod verify;

use std::fmt;

use async_trait::async_trait;
use serde::Serialize;

use crate::broadcast;

pub use chv::{ChvSandbox, OLDEST_RELEASE};
pub use config::{ConfigError, SandboxConfig, Timeouts, VmmEnv};
pub use error::{BootFailure, Error, FailedReset, Unavailable};
pub use event::Event;
pub use guest::OlderGuest;
pub use report::{Check, HashedDisk, Outcome, ResetReport, Source, StrategyUsed};
pub use reset_state::{FsHash, Reset, ResetOutcome, ResetState, VerificationDetails};

pub use crate::golden::MemoryMode;
pub use crate::guest::protocol::{DivergenceAction, VmmApiState};
pub use crate::machine::VerificationLevel;
pub use strategy::{MAX_SPARES, Standby, Strategy};
pub use stub::StubSandbox;
pub use tool::{ToolExecution, ToolInvocation};

/// A sandbox that runs untrusted tools and can prove that nothing of the last one is left.
///
/// Every method takes `&self`, so that a sandbox can be shared, and be shut down while something else is under
/// way. Usable as `Box<dyn Sandbox>`.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Brings the VM up and opens the channel. Does nothing on a ready sandbox.
    ///
    /// # Errors
    ///
    /// [`Error::NotAvailable`] where no sandbox can run, [`Error::BootFailed`] when this one didn't come up;
    /// what had been started is cleaned up then.
    async fn boot(&self) -> Result<(), Error>;

    /// Runs one tool in the guest. An exit code other than 0 is a result, not an error.
    ///
    /// # Errors
    ///
    /// [`Error::NotAvailable`] unless the sandbox is ready; [`Error::ToolTimeout`] when no answer came within
    /// the invocation's deadline and the grace, after which the sandbox takes no tool until it is reset;
    /// [`Error::Channel`].
    async fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error>;

    /// Reverts the sandbox and verifies that it did. Ends what is in flight.
    ///
    /// # Errors
    ///
    /// [`Error::ResetDivergence`] when a source disagrees with its baseline, [`Error::ResetTimeout`] when one
    /// stayed silent twice, [`Error::ResetFailed`] when the revert itself failed. Never a pass in any of them.
    async fn reset(&self) -> Result<Reset, Error>;

    /// Stops and releases everything, whatever is under way. Idempotent. Doesn't reset.
    async fn shutdown(&self);

    /// Where the sandbox stands.
    fn state(&self) -> SandboxState;

    /// What the sandbox is made of.
    fn backend(&self) -> Backend;

    /// What happens from now on, for the agent's audit. A receiver that falls behind by more than 256 events, or by
    /// 8 MiB of what they hold, loses the oldest and is told how many.
    fn subscribe(&self) -> broadcast::Receiver<Event>;
}

/// Where a sandbox stands. See the diagram of the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Nothing runs.
    NotBooted,
    /// It is coming up.
    Booting,
    /// It is up, and its last reset was verified.
    Ready,
    /// It is being reverted.
    Resetting,
    /// Its boot or a reset failed, or its VMM died.
    Failed,
}

impl fmt::Display for SandboxState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SandboxState::NotBooted => "not_booted",
            SandboxState::Booting => "booting",
            SandboxState::Ready => "ready",
            SandboxState::Resetting => "resetting",
            SandboxState::Failed => "failed",
        })
    }
}

/// What a sandbox is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// A microVM on Cloud Hypervisor.
    Chv,
    /// A microVM on Apple's Virtualization framework; other projects implement it.
    Vf,
    /// Nothing: for the development of an agent. It isolates nothing and verifies nothing.
    Stub,
}
