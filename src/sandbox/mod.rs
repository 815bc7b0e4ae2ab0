//! The sandbox as an agent sees it: boot, run a tool, revert and prove it, shut down.
//!
//! ```text
//!               boot                      reset                      diverged, silent twice
//!  NotBooted ---------> Booting ---> Ready -----> Resetting -----------------------> Halted
//!      ^                   |         |  ^  ^        |  |  ^
//!      |                   |         |  |  +--------+  |  | reset
//!      |            failed |  a tool |  |    verified  |  |
//!      |                   |         v  |       failed |  |
//!      |                   |   NeedsReset --reset------|--+
//!      |                   v                           v  |
//!      |                 Failed <--- the VMM ended --- Failed
//!      |                   |
//!      +-------------------+-- shutdown, from every state, also Halted
//! ```
//!
//! A reset that failed may be tried again; after a divergence or a time-out the sandbox is *halted*: it takes
//! nothing but `shutdown`.
//!
//! A [`ChvSandbox`] is driven by a task of its own, on the runtime of its first call. So a call that is dropped changes
//! nothing: a boot or a reset that has begun goes on to its end, and [`shutdown`](Sandbox::shutdown) ends whatever is under
//! way, from any task, whether or not the other call is polled.

mod calls;
mod chv;
mod config;
mod driver;
mod error;
mod event;
mod events;
mod evidence;
mod execution;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guest;
mod in_flight;
#[cfg(feature = "metrics")]
pub mod metrics;
mod pool;
mod report;
mod reset_state;
mod reset_target;
mod running;
mod span;
mod spares;
mod state;
mod status;
mod strategy;
mod stub;
mod supply;
mod tool;
mod transfer;
mod verify;

use std::path::Path;

use async_trait::async_trait;
use serde::Serialize;

use crate::broadcast;

pub use chv::ChvSandbox;
pub use config::{ConfigError, GoldenOrigin, SandboxConfig, SandboxOrigin, ScaffoldOrigin, VmmEnv};
pub use error::{Advice, BootFailure, Error, FailedReset, ToolRefusal, Unavailable};
pub use event::Event;
pub use execution::{ToolExecution, ToolOutcome, ToolOutput};
pub use guest::OlderGuest;
pub use pool::{Pool, PoolConfig, PoolStatus, PooledSandbox, VmMemory};
pub use report::{Check, Outcome, ResetReport, Source, StrategyUsed, VmmUsed};
pub use reset_state::{FsHash, Reset, ResetOutcome, ResetState, VerificationDetails};
pub use reset_target::OLDEST_RELEASE;
pub use running::{
    CollectedRun, OutputChunk, RunController, RunInput, RunInputs, RunOutputs, RunReport,
    RunningTool, StreamEvidence, ToolStdin,
};
pub use state::{ResetReason, SandboxState, WireState};

pub use crate::golden::MemoryMode;
pub use crate::guest::protocol::{DivergenceAction, RunSignal, StdinMode, VmmApiState};
pub use crate::machine::VerificationLevel;
pub use crate::vsock::OutputStream;
pub use strategy::{MAX_SPARES, Strategy};
pub use stub::{StubRun, StubSandbox};
pub use tool::{EnvironmentError, ToolInvocation, ToolsPerReset};
pub use transfer::{FilesMoved, TransferError, TransferOptions, TransferReport};

pub use crate::archive::{
    EntryKind, FileCode, FileEntry, Totals, TransferLimits, TransferProgress,
};

/// A sandbox that runs untrusted tools and can prove that nothing of the last one is left.
///
/// Every method takes `&self`, so that a sandbox can be shared, and be shut down while something else is under
/// way. Usable as `Box<dyn Sandbox>`.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Brings the VM up and opens the channel. Does nothing on a ready sandbox. If the returned future is dropped the boot
    /// goes on; one that waits for another call to end is not begun then.
    ///
    /// # Errors
    ///
    /// [`Error::NotAvailable`] where no sandbox can run, [`Error::BootFailed`] when this one didn't come up;
    /// what had been started is cleaned up then. [`Error::Halted`] when it has halted, [`Error::ShutDown`].
    async fn boot(&self) -> Result<(), Error>;

    /// Runs one tool in the guest. Whatever the guest answers is a result, not an error: its
    /// [`outcome`](ToolExecution::outcome) says how the tool ended. If the returned future is dropped the tool may go on,
    /// so the sandbox takes no other until it is reset.
    ///
    /// # Errors
    ///
    /// - [`Error::NotReady`] and [`Error::Halted`]: the sandbox is in no state to run a tool.
    /// - [`Error::NeedsReset`]: it takes no tool before a reset, for one because [one tool](ToolsPerReset::One) has run.
    /// - [`Error::ToolRefused`]: the invocation can't be sent. Nothing ran, and the sandbox goes on.
    /// - [`Error::ToolTimeout`]: no answer came within the invocation's deadline and the grace.
    /// - [`Error::ResetInterrupted`] and [`Error::ShutDown`]: a reset or a shutdown ended the tool.
    /// - [`Error::VmmEnded`] and [`Error::Channel`]: the VMM or the channel failed. What the tool did isn't known.
    async fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error>;

    /// Starts one tool with streams, on a connection of its own. It counts as a tool as one that is
    /// [executed](Self::execute_tool) does. Its output isn't limited to 1 MiB, and it may be given a standard input, an
    /// environment and a directory as far as the image's tools file allows. A tool that the guest doesn't have or refuses is
    /// started, too, and its [outcome](RunReport::outcome) says so. If the returned future is dropped the guest ends the tool,
    /// and the sandbox takes no other until it is reset.
    ///
    /// # Errors
    ///
    /// - [`Error::NotReady`], [`Error::Halted`] and [`Error::NeedsReset`]: as with [`execute_tool`](Self::execute_tool).
    /// - [`Error::ToolRefused`]: the invocation can't be sent, for one since the guest is older than streams. Nothing ran, and
    ///   the sandbox goes on.
    /// - [`Error::ResetInterrupted`], [`Error::ShutDown`] and [`Error::VmmEnded`]: a reset, a shutdown or the VMM's end came
    ///   before the tool had begun.
    /// - [`Error::Channel`]: the guest serves too many runs and transfers at once
    ///   ([`TooManyStreams`](crate::vsock::Error::TooManyStreams)), or no connection came about.
    async fn start(&self, invocation: ToolInvocation) -> Result<RunningTool, Error>;

    /// Runs one tool and resets the sandbox, whatever became of the tool. The tool's output is given only together with the
    /// reset that was verified (or, in scaffold mode, made). If the returned future is dropped, the tool may go on, and the
    /// sandbox takes no other until it is reset.
    ///
    /// # Errors
    ///
    /// Those of [`reset`](Self::reset), in which case the tool's output is withheld; otherwise those of
    /// [`execute_tool`](Self::execute_tool), after a reset unless the tool was not sent to the guest.
    async fn run_once(&self, invocation: ToolInvocation) -> Result<RunOnce, Error> {
        let ran = self.execute_tool(invocation).await;
        if let Err(error) = &ran
            && error.is_unsent()
        {
            return Err(error.clone());
        }
        let reset = self.reset().await?;
        let execution = ran?;
        Ok(RunOnce { execution, reset })
    }

    /// Brings the file or directory at `local`, with all that is in it, into the guest: to `path` in the guest's directory
    /// for files, by its absolute path as tools see it or relative to that directory. There it belongs to the tools' user.
    ///
    /// `path` names what is created. Its directory has to be there, and nothing is replaced, but that a directory may take the
    /// place of an empty one. Either everything is at `path` and on the guest's disk, or nothing is. Kept are bytes,
    /// permissions, and times in whole seconds; what can't be transferred is [refused](crate::archive#what-is-refused), and no
    /// symbolic link below `local` is followed.
    ///
    /// A push is no tool: with [one tool](ToolsPerReset::One) a reset, files come in, the tool runs, files go
    /// [out](Self::pull). A sandbox that files were brought into stays ready. The next reset removes them. If the returned
    /// future is dropped, the transfer ends, and nothing of it is left.
    ///
    /// # Errors
    ///
    /// - [`Error::NotReady`], [`Error::NeedsReset`] and [`Error::Halted`]: the sandbox is in no state for it.
    /// - [`Error::Files`]: the files can't be packed here or put there. The sandbox goes on.
    /// - [`Error::ResetInterrupted`] and [`Error::ShutDown`]: a reset or a shutdown ended it.
    /// - [`Error::VmmEnded`] and [`Error::Channel`]: the VMM or the connection failed, the guest is too old for files, or
    ///   broke the protocol.
    async fn push(
        &self,
        local: &Path,
        path: &str,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error>;

    /// Brings the file or directory at `path` in the guest's directory for files, with all that is in it, out to `local`. The
    /// guest is not trusted: see [`archive`](crate::archive#what-is-refused) for what is refused, and for what is kept.
    ///
    /// `local` names what is created, as with [`push`](Self::push): its directory has to be there, and nothing is replaced but
    /// an empty directory by a directory. Until all of it is on the disk and its digest is what the guest says, it lies beside
    /// `local`, under a name that begins with `.chv-`, where only this user can enter it. Only the end of this process leaves
    /// such a name behind.
    ///
    /// Allowed also after the [one tool](ToolsPerReset::One), before the reset. If the returned future is dropped, the transfer
    /// ends, and nothing of it is left.
    ///
    /// # Errors
    ///
    /// As with [`push`](Self::push).
    async fn pull(
        &self,
        path: &str,
        local: &Path,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error>;

    /// Reverts the sandbox and verifies that it did. Ends what is in flight. If the returned future is dropped the reset goes
    /// on; one that waits for another call to end is not begun then.
    ///
    /// # Errors
    ///
    /// Never a pass in any of them:
    ///
    /// - [`Error::ResetDivergence`]: a source disagrees with its baseline; [`Error::ResetTimeout`]: one stayed silent twice.
    ///   The sandbox has halted.
    /// - [`Error::ResetFailed`] and [`Error::ResetRefused`]: the revert was not made. The sandbox has failed.
    /// - [`Error::NotAvailable`]: the VMM is of another release by now.
    /// - [`Error::NotReady`]: it has not booted; [`Error::Halted`]: it halted before.
    /// - [`Error::ShutDown`]: a shutdown ended the reset.
    async fn reset(&self) -> Result<Reset, Error>;

    /// Stops and releases everything, whatever is under way, which ends with [`Error::ShutDown`]. VMMs of ours are killed.
    /// Idempotent, safe beside any other call and from any task; goes on to its end if the returned future is dropped.
    /// Doesn't reset.
    async fn shutdown(&self);

    /// Where the sandbox stands.
    fn state(&self) -> SandboxState;

    /// What the sandbox is made of.
    fn backend(&self) -> Backend;

    /// What happens from now on, for the agent's audit. A receiver that falls behind by more than 256 events, or by
    /// 8 MiB of what they hold, loses the oldest and is told how many.
    fn subscribe(&self) -> broadcast::Receiver<Event>;
}

/// What a tool did, and the reset that followed it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunOnce {
    /// What the tool did.
    pub execution: ToolExecution,
    /// The reset: [`Reset::Verified`], but in scaffold mode.
    pub reset: Reset,
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
