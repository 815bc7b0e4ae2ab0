//! The sandbox as an agent uses it: boot, run tools, reset and verify, shut down.
//!
//! [`Sandbox`] is the interface. [`ChvSandbox`] implements it with a microVM on Cloud Hypervisor, [`StubSandbox`]
//! without any VM for unit tests. A [`Pool`] keeps several `ChvSandbox`es of one golden snapshot ready. For programs
//! without an async runtime see [`blocking`](crate::blocking).
//!
//! ```text
//!              boot                     a tool runs (tools_per_reset = one)
//!  NotBooted ------> Booting ---> Ready ---------------------------------> NeedsReset
//!                       |          ^  |                                      |
//!                       |          |  | reset                                | reset
//!                       |          |  v                                      |
//!                       |        Resetting <---------------------------------+
//!                       |          |     |
//!                       | failed   |     | a source disagreed, or was silent twice
//!                       v   failed |     v
//!                     Failed <-----+   Halted
//!
//!  Ready, NeedsReset --- the VMM ended by itself ---> Failed
//!  any state         --- shutdown ------------------> NotBooted
//! ```
//!
//! Which call is allowed in which [`SandboxState`], and the [`Error`] of the calls that are not:
//!
//! | state | `boot` | tools and `push` | `pull` | `reset` |
//! |---|---|---|---|---|
//! | `NotBooted` | boots | `NotReady` | `NotReady` | `NotReady` |
//! | `Booting`, `Resetting` | waits its turn | `NotReady` | `NotReady` | waits its turn |
//! | `Ready` | does nothing | allowed | allowed | resets |
//! | `NeedsReset` | does nothing | `NeedsReset` | allowed after [`ResetReason::ToolRan`] | resets |
//! | `Failed` | boots again | `NotReady` | `NotReady` | resets; `NotReady` if nothing is left to reset |
//! | `Halted` | `Halted` | `Halted` | `Halted` | `Halted` |
//!
//! `shutdown` is allowed in every state, also while another call is under way. After it the sandbox may be booted
//! again. In the state `Failed` there is nothing left to reset after a failed boot, and in
//! [scaffold mode](SandboxOrigin::Scaffold) after a failed reset that killed the VMM.
//!
//! One task drives a [`ChvSandbox`], on the tokio runtime of its first call. A caller that drops the future of a `boot`
//! or a `reset` therefore doesn't interrupt it: the boot or reset goes on to its end. [`shutdown`](Sandbox::shutdown)
//! interrupts whatever is under way, from any task, whether or not the interrupted call is polled.
//!
//! # The agent's protocol
//!
//! The *agent* is the program that uses a sandbox. The *agent's protocol* is the set of names and JSON shapes in which
//! agents report on their sandboxes: those of [`WireState`], [`Backend`], [`ResetState`], [`ToolInvocation`] and
//! [`ToolExecution`], and the codes of [`Error::code`]. They are the same for every implementation of [`Sandbox`].
//! Where this crate knows more than the protocol has, another type says it: [`SandboxState`], [`ResetReport`],
//! [`ToolOutcome`].

mod call_activity;
mod chv;
mod config;
mod driver;
mod error;
mod event;
mod event_sender;
mod evidence;
mod execution;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guest_checks;
mod in_flight;
#[cfg(feature = "metrics")]
pub mod metrics;
mod pool;
mod reset_report;
mod reset_state;
mod reset_target;
mod running;
mod shared_target;
mod span;
mod spares;
mod state;
mod status;
mod strategy;
mod stub;
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
pub use guest_checks::OlderGuest;
pub use pool::{MemoryPerVm, Pool, PoolConfig, PoolStatus, PooledSandbox};
pub use reset_report::{CheckOutcome, CheckSource, ResetCheck, ResetReport, StrategyUsed, VmmUsed};
pub use reset_state::{FsHash, Reset, ResetOutcome, ResetState, ResetVerdict, VerificationDetails};
pub use reset_target::OLDEST_RELEASE;
pub use running::{
    CollectedRun, OutputChunk, RunInput, RunReport, RunningTool, StreamEvidence, ToolSide,
    ToolSideInput, ToolSideOutput, ToolStdin,
};
pub use state::{ResetReason, SandboxState, WireState};

pub use crate::golden::MemoryMode;
pub use crate::guest::protocol::{DivergenceAction, RunSignal, StdinMode, VmmApiState};
pub use crate::overlay::VerificationLevel;
pub use crate::vsock::OutputStream;
pub use strategy::{MAX_SPARES, Strategy};
pub use stub::{StubRun, StubSandbox};
pub use tool::{EnvironmentError, ToolInvocation, ToolsPerReset};
pub use transfer::{TransferEnded, TransferError, TransferOptions, TransferReport};

pub use crate::archive::{
    EntryKind, FileCode, FileEntry, Totals, TransferLimits, TransferProgress,
};

/// A sandbox that runs untrusted tools, and that a reset returns to its golden snapshot and verifies.
///
/// The usual cycle is [`boot`](Self::boot) once, then for each tool [`execute_tool`](Self::execute_tool) and
/// [`reset`](Self::reset), or both in one call with [`run_once`](Self::run_once), and [`shutdown`](Self::shutdown) at
/// the end. The [module](crate::sandbox) has a table of the calls that each state allows.
///
/// Every method takes `&self`, so tasks can share a sandbox, and one of them can shut it down while another one waits
/// for a call. The trait is usable as `Box<dyn Sandbox>`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use chv_sandbox::sandbox::{Reset, Sandbox, StubSandbox, ToolInvocation};
/// use serde_json::json;
///
/// // The stub needs no KVM. See `ChvSandbox` for a sandbox that isolates.
/// let sandbox: Box<dyn Sandbox> = Box::new(StubSandbox::default());
/// sandbox.boot().await?;
/// let done = sandbox.run_once(ToolInvocation::new("echo", json!({ "message": "hello" }))).await?;
/// assert_eq!(done.execution.stdout.text(), "hello\n");
/// // The stub verifies nothing. A sandbox with a golden snapshot returns `Reset::Verified`.
/// assert!(matches!(done.reset, Reset::Scaffold(_)));
/// sandbox.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// # Implementing it
///
/// The trait is declared with the attribute `#[async_trait]` of the crate
/// [`async-trait`](https://docs.rs/async-trait) 0.1, and an implementation needs the same attribute.
/// [`run_once`](Self::run_once) is provided; all other methods are required. An implementation outside this crate wraps
/// another sandbox, for example to count resets or to fail on purpose in a test: only the sandboxes of this crate make
/// a [`ResetOutcome`] and a receiver of events.
///
/// ```
/// use std::path::Path;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use async_trait::async_trait;
/// use chv_sandbox::broadcast;
/// use chv_sandbox::sandbox::{
///     Backend, Error, Event, Reset, RunningTool, Sandbox, SandboxState, ToolExecution, ToolInvocation,
///     TransferOptions, TransferReport,
/// };
///
/// struct Counted<S> {
///     inner: S,
///     resets: AtomicU64,
/// }
///
/// #[async_trait]
/// impl<S: Sandbox> Sandbox for Counted<S> {
///     async fn reset(&self) -> Result<Reset, Error> {
///         self.resets.fetch_add(1, Ordering::Relaxed);
///         self.inner.reset().await
///     }
///
///     async fn boot(&self) -> Result<(), Error> {
///         self.inner.boot().await
///     }
///
///     async fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error> {
///         self.inner.execute_tool(invocation).await
///     }
///
///     async fn start(&self, invocation: ToolInvocation) -> Result<RunningTool, Error> {
///         self.inner.start(invocation).await
///     }
///
///     async fn push(
///         &self,
///         local: &Path,
///         path: &str,
///         options: &TransferOptions,
///     ) -> Result<TransferReport, Error> {
///         self.inner.push(local, path, options).await
///     }
///
///     async fn pull(
///         &self,
///         path: &str,
///         local: &Path,
///         options: &TransferOptions,
///     ) -> Result<TransferReport, Error> {
///         self.inner.pull(path, local, options).await
///     }
///
///     async fn shutdown(&self) {
///         self.inner.shutdown().await;
///     }
///
///     fn state(&self) -> SandboxState {
///         self.inner.state()
///     }
///
///     fn backend(&self) -> Backend {
///         self.inner.backend()
///     }
///
///     fn subscribe(&self) -> broadcast::Receiver<Event> {
///         self.inner.subscribe()
///     }
/// }
/// ```
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Starts the VM and opens the channel to its guest. Leaves the sandbox [`Ready`](SandboxState::Ready).
    ///
    /// Does nothing in the states [`Ready`](SandboxState::Ready) and [`NeedsReset`](SandboxState::NeedsReset). A
    /// sandbox that has [failed](SandboxState::Failed) is booted again. If the returned future is dropped, a boot that
    /// has begun goes on; a boot that still waits for another boot or reset to end is not begun.
    ///
    /// # Errors
    ///
    /// - [`Error::NotAvailable`]: this host or this VMM can't run the sandbox.
    /// - [`Error::BootFailed`]: the VM didn't start, or is not what the golden snapshot says. What had been started is
    ///   removed.
    /// - [`Error::Halted`]: the sandbox has halted.
    /// - [`Error::ShutDown`]: a shutdown ended the boot.
    async fn boot(&self) -> Result<(), Error>;

    /// Runs one tool in the guest, waits for its end, and returns its output. Legal in [`Ready`](SandboxState::Ready).
    ///
    /// Every answer of the guest is a result, not an error: a non-zero exit code, a tool that was killed at its
    /// deadline, a tool that the guest doesn't have. The [`outcome`](ToolExecution::outcome) tells them apart. The
    /// guest keeps at most 1 MiB of each output stream; the output of [`start`](Self::start) has only the limit that the
    /// image sets.
    ///
    /// With [`ToolsPerReset::One`], the default, the sandbox needs a reset afterwards. If the returned future is
    /// dropped, the tool may still run, so the sandbox takes no other tool until it is reset.
    ///
    /// # Errors
    ///
    /// - [`Error::NotReady`] and [`Error::Halted`]: the sandbox's state doesn't allow a tool.
    /// - [`Error::NeedsReset`]: the sandbox takes no tool before a reset, for example because
    ///   [one tool](ToolsPerReset::One) has run.
    /// - [`Error::ToolRefused`]: the invocation can't be sent. Nothing ran, and the sandbox stays ready.
    /// - [`Error::ToolTimeout`]: no answer came within the invocation's deadline and
    ///   [`tool_grace`](crate::limits::TimeLimits::tool_grace).
    /// - [`Error::ResetInterrupted`] and [`Error::ShutDown`]: a reset or a shutdown ended the call.
    /// - [`Error::VmmEnded`] and [`Error::Channel`]: the VMM or the channel failed. It isn't known what the tool did,
    ///   unless the channel's error is [`DuplicateRequest`](crate::vsock::Error::DuplicateRequest): then nothing was
    ///   sent.
    async fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error>;

    /// Starts one tool with streams, on a vsock connection of its own, and returns while it runs. Legal in
    /// [`Ready`](SandboxState::Ready).
    ///
    /// Such a tool counts toward [`ToolsPerReset`] as an [executed](Self::execute_tool) one does. Its output isn't
    /// limited to 1 MiB. If the image's tools file limits it (`output_mib`), the tool runs on and the rest of its output
    /// is dropped; only [`is_cut`](StreamEvidence::is_cut) in the report says so. The tool may be given a standard input,
    /// an environment and a directory, as far as the tools file allows. If the guest doesn't have the tool or refuses it,
    /// `start` succeeds all the same, and the run's [outcome](RunReport::outcome) says so. If the returned future is
    /// dropped, the guest ends the tool, and the sandbox takes no other tool until it is reset.
    ///
    /// # Errors
    ///
    /// - [`Error::NotReady`], [`Error::Halted`] and [`Error::NeedsReset`]: as with
    ///   [`execute_tool`](Self::execute_tool).
    /// - [`Error::ToolRefused`]: the invocation can't be sent, for example because the guest doesn't support streams.
    ///   Nothing ran, and the sandbox stays ready.
    /// - [`Error::ResetInterrupted`], [`Error::ShutDown`] and [`Error::VmmEnded`]: a reset, a shutdown or the VMM's end
    ///   came before the tool had begun.
    /// - [`Error::Channel`]: the guest already serves as many runs and transfers as it does at once
    ///   ([`TooManyStreams`](crate::vsock::Error::TooManyStreams)), or the connection failed.
    async fn start(&self, invocation: ToolInvocation) -> Result<RunningTool, Error>;

    /// Runs one tool as [`execute_tool`](Self::execute_tool) does, then resets the sandbox as [`reset`](Self::reset)
    /// does.
    ///
    /// The sandbox is reset however the tool ended, unless the tool was never sent to the guest. The tool's output is
    /// returned only with a reset that was verified (in scaffold mode: with a reset that was made). If the returned
    /// future is dropped while the tool runs, the tool may still run, and the sandbox takes no other tool until it is
    /// reset.
    ///
    /// # Errors
    ///
    /// - The errors of [`reset`](Self::reset) if the reset failed, also when the tool succeeded: its output is dropped.
    /// - Otherwise the errors of [`execute_tool`](Self::execute_tool).
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

    /// Copies the file or directory at `local`, with its whole content, into the guest at `path`. Legal in
    /// [`Ready`](SandboxState::Ready), which the sandbox stays in.
    ///
    /// `path` lies in the guest's directory for files (`/work` unless the image sets another one): either the absolute
    /// path as tools see it, or a path relative to that directory. The copy belongs to the user that tools run as. The
    /// parent directory of `path` has to exist. Nothing is replaced, except that a directory may replace an empty
    /// directory. After success all files are at `path` and on the guest's disk; after an error none is. Content,
    /// permissions, and times in whole seconds are kept. Entries that can't be transferred are
    /// [refused](crate::archive#what-is-refused). No symbolic link below `local` is followed.
    ///
    /// A push doesn't count as a tool. With [one tool](ToolsPerReset::One) between two resets, the usual order is:
    /// push, run the tool, [pull](Self::pull), reset. The reset removes the pushed files. If the returned future is
    /// dropped, the transfer ends, and nothing of it is left in the guest.
    ///
    /// # Errors
    ///
    /// - [`Error::NotReady`], [`Error::NeedsReset`] and [`Error::Halted`]: the sandbox's state doesn't allow a push.
    /// - [`Error::Files`]: the files can't be packed on this side or stored in the guest. The sandbox's state is
    ///   unchanged; the error's [advice](Error::advice) says whether to reset it.
    /// - [`Error::ResetInterrupted`] and [`Error::ShutDown`]: a reset or a shutdown ended the transfer.
    /// - [`Error::VmmEnded`] and [`Error::Channel`]: the VMM or the connection failed, the guest doesn't support
    ///   transfers of files ([`NotAnnounced`](crate::vsock::Error::NotAnnounced)), or the guest broke the protocol.
    /// - [`Error::NoThread`]: no thread could be started to pack the files.
    async fn push(
        &self,
        local: &Path,
        path: &str,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error>;

    /// Copies the file or directory at `path` in the guest, with its whole content, to `local` on the host. Legal in
    /// [`Ready`](SandboxState::Ready), and in [`NeedsReset`](SandboxState::NeedsReset) with the reason
    /// [`ToolRan`](ResetReason::ToolRan): after the [one tool](ToolsPerReset::One), before the reset.
    ///
    /// `path` is read as in [`push`](Self::push). The guest is not trusted: [`archive`](crate::archive#what-is-refused)
    /// says which entries are refused, and what is kept of the others. The parent directory of `local` has to exist.
    /// Nothing is replaced, except that a directory may replace an empty directory.
    ///
    /// The files are first extracted beside `local`, into a directory whose name begins with `.chv-` and that only this
    /// user can enter. They are renamed to `local` once all of them are on the disk and their digest is the one that
    /// the guest says. Only a process that is killed during a pull leaves such a directory behind. If the returned
    /// future is dropped, the transfer ends, and nothing of it is left.
    ///
    /// # Errors
    ///
    /// Those of [`push`](Self::push).
    async fn pull(
        &self,
        path: &str,
        local: &Path,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error>;

    /// Returns the sandbox to its golden snapshot and verifies the result. Legal in [`Ready`](SandboxState::Ready),
    /// [`NeedsReset`](SandboxState::NeedsReset) and, if the sandbox had booted, [`Failed`](SandboxState::Failed).
    /// Leaves the sandbox [`Ready`](SandboxState::Ready).
    ///
    /// Tools and transfers that are under way end with [`Error::ResetInterrupted`]. With a golden snapshot the result
    /// is [`Reset::Verified`]; in scaffold mode it is [`Reset::Scaffold`], and nothing was verified. If the returned
    /// future is dropped, a reset that has begun goes on; a reset that still waits for another boot or reset to end is
    /// not begun.
    ///
    /// # Errors
    ///
    /// After none of these errors is the sandbox clean:
    ///
    /// - [`Error::ResetDivergence`]: a source disagrees with its baseline. The sandbox has halted.
    /// - [`Error::ResetTimeout`]: a source gave no answer, twice. The sandbox has halted.
    /// - [`Error::ResetFailed`]: the VM could not be reverted. The sandbox has failed, and may be reset again.
    /// - [`Error::ResetRefused`]: the golden snapshot can't be used any more. The sandbox has failed.
    /// - [`Error::NotAvailable`]: the VMM's executable is of another release by now. The sandbox has failed.
    /// - [`Error::NotReady`]: the sandbox has not booted, or its last boot failed.
    /// - [`Error::Halted`]: the sandbox had halted before.
    /// - [`Error::ShutDown`]: a shutdown ended the reset.
    async fn reset(&self) -> Result<Reset, Error>;

    /// Stops the VM and releases everything. Legal in every state; leaves the sandbox
    /// [`NotBooted`](SandboxState::NotBooted), so that it may be booted again.
    ///
    /// Other calls that are under way end with [`Error::ShutDown`]. VMMs that this process started are killed; the VM
    /// in a VMM that another program runs is deleted. Nothing is reset or verified. `shutdown` is idempotent and may be
    /// called from any task at any time. If the returned future is dropped, the shutdown goes on to its end.
    async fn shutdown(&self);

    /// The present state. Returns at once.
    fn state(&self) -> SandboxState;

    /// How this sandbox isolates its tools: which implementation of the trait it is.
    fn backend(&self) -> Backend;

    /// A receiver of all events from now on, for the agent's audit log.
    ///
    /// The receiver is [closed](broadcast::RecvError::Closed) once the sandbox is dropped. A task that waits for that
    /// has to hold the receiver and not the sandbox.
    ///
    /// A receiver that falls behind by more than 256 events, or by events that hold more than 8 MiB, loses the oldest
    /// and is told how many it lost. (The [`StubSandbox`] keeps 64 events and 1 MiB.)
    fn subscribe(&self) -> broadcast::Receiver<Event>;
}

/// The result of [`Sandbox::run_once`]: what a tool did, and the reset that followed it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunOnce {
    /// How the tool ended, and its output.
    pub execution: ToolExecution,
    /// The reset: [`Reset::Scaffold`] in scaffold mode and of a stub, otherwise [`Reset::Verified`].
    pub reset: Reset,
}

/// Which implementation of [`Sandbox`] a sandbox is. It serialises in snake case: `chv`, `vf`, `stub`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Backend {
    /// A microVM on Cloud Hypervisor.
    Chv,
    /// A microVM on Apple's Virtualization framework, in the agent's protocol. This crate has no implementation.
    Vf,
    /// No VM: [`StubSandbox`], for the development of an agent. It isolates nothing and verifies nothing.
    Stub,
}
