//! [`ChvSandbox`]: the sandbox on Cloud Hypervisor. It is a handle that sends its callers' requests to the driver task.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::call_activity::CallActivity;
use super::driver::{Call, Driver, Request, Settings, SharedParts, Shutdowns};
use super::in_flight::ToolInFlight;
use super::running::RunLimits;
use super::shared_target::SharedTarget;
use super::status::Status;
use super::transfer::{self, Direction, Transfer};
use super::{
    Backend, ConfigError, Error, Event, Reset, RunningTool, Sandbox, SandboxConfig, SandboxOrigin,
    SandboxState, Strategy, ToolExecution, ToolInvocation, TransferOptions, TransferReport,
};
use crate::broadcast;
use crate::golden::{LoadedGolden, MemoryBasis};
use crate::guest::protocol::{OpenRun, ToolDispatch};
use crate::machine::VmmSource;
use crate::mutex::lock;
use crate::vsock::Channel;

/// How many boots and resets may wait in the driver's inbox. The callers of further ones wait until there is room.
const REQUESTS: usize = 64;

/// A [`Sandbox`] in a microVM on Cloud Hypervisor.
///
/// With a golden snapshot, `boot` restores the snapshot and verifies the VM just as `reset` does. In scaffold mode,
/// `boot` boots a kernel from disks, and nothing is verified.
///
/// One task carries out the calls. It lives on the tokio runtime of the first call, and a later call starts it anew if
/// that runtime is gone. [`shutdown`](Sandbox::shutdown) kills the VMMs, removes their files, and waits until both are
/// done. Dropping the sandbox, or its runtime, does the same without waiting.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use chv_sandbox::sandbox::{ChvSandbox, Sandbox, SandboxConfig, ToolInvocation};
/// use serde_json::json;
///
/// let sandbox = ChvSandbox::new(SandboxConfig::golden("/var/lib/agent/golden"))?;
/// sandbox.boot().await?;
/// let done = sandbox.run_once(ToolInvocation::new("echo", json!({ "message": "hello" }))).await?;
/// assert!(done.reset.is_verified());
/// println!("{}: {}", done.execution.outcome, done.execution.stdout.text());
/// sandbox.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct ChvSandbox {
    settings: Arc<Settings>,
    status: Arc<Status>,
    calls: CallActivity,
    stops: Shutdowns,
    driver: Mutex<Option<RunningDriver>>,
}

/// The driver task. It is aborted when this is dropped.
struct RunningDriver {
    requests: mpsc::Sender<Request>,
    task: AbortHandle,
}

impl Drop for RunningDriver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ChvSandbox {
    /// Creates a sandbox that starts its own VMMs. Checks the configuration and starts nothing: no file is opened
    /// before [`boot`](Sandbox::boot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`]: a value of `config` is not allowed.
    pub fn new(config: SandboxConfig) -> Result<Self, ConfigError> {
        let source = VmmSource::Spawn(config.vmm_config());
        Self::build(config, source, None, true)
    }

    /// A sandbox of a pool, which shares the pool's reset target and spares. The pool has checked the configuration.
    pub(super) fn of_pool(
        config: SandboxConfig,
        source: VmmSource,
        shared_target: Arc<SharedTarget>,
    ) -> Self {
        let settings = Settings {
            config,
            source,
            needs_kvm: false,
            shared: Some(SharedParts::Target(Arc::clone(&shared_target))),
        };
        ChvSandbox {
            calls: shared_target.calls.clone(),
            ..Self::of(settings)
        }
    }

    /// Creates a sandbox on a golden snapshot that is loaded already. Several sandboxes of one process can share one
    /// loaded golden snapshot: its memory is then held once, and its files were verified once.
    ///
    /// The settings of `config` that say how to load the golden snapshot are ignored: `directory`, `digest`,
    /// `public_key`, `memory` and `memory_limit_mib`. For a number of such sandboxes see also [`Pool`](super::Pool).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`]: a value of `config` is not allowed, `config` asks for scaffold mode, or `golden` was
    /// loaded for a VMM that another program runs.
    pub fn with_loaded(
        mut config: SandboxConfig,
        golden: Arc<LoadedGolden>,
    ) -> Result<Self, ConfigError> {
        if golden.memory().basis == MemoryBasis::Unproved {
            return Err(ConfigError::Invalid {
                field: "golden",
                reason: "was loaded for a VMM that another program runs".to_owned(),
            });
        }
        match &mut config.origin {
            SandboxOrigin::Golden(origin) => {
                origin.directory = golden.golden().directory().to_owned();
            }
            SandboxOrigin::Scaffold(_) => {
                return Err(ConfigError::Invalid {
                    field: "scaffold",
                    reason: "is set, and a loaded golden snapshot is given: remove one of them"
                        .to_owned(),
                });
            }
        }
        let source = VmmSource::Spawn(config.vmm_config());
        Self::build(config, source, Some(SharedParts::Golden(golden)), true)
    }

    /// Creates a sandbox on the VMMs of `source`: a VMM that another program runs, such as a player of recordings, or
    /// VMM processes with settings that [`SandboxConfig`] doesn't have.
    ///
    /// Of the settings in `config` that concern the VMM's process, only `limits` is used. The sandbox doesn't check for
    /// KVM; a VMM without KVM fails at the boot. On a VMM that another program runs, the checks that need the VMM's
    /// process are reported as [not applicable](super::CheckOutcome::NotApplicable), and [`Strategy::InPlace`] is the
    /// only strategy.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`]: a value of `config` is not allowed, or `config` asks for [`Strategy::Fresh`] on a VMM
    /// that another program runs.
    pub fn with_vmm(config: SandboxConfig, source: VmmSource) -> Result<Self, ConfigError> {
        Self::build(config, source, None, false)
    }

    fn build(
        config: SandboxConfig,
        source: VmmSource,
        shared: Option<SharedParts>,
        needs_kvm: bool,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        if let VmmSource::Attach { .. } = source
            && config.strategy_on(&source) == Strategy::Fresh
        {
            return Err(ConfigError::Invalid {
                field: "golden.strategy",
                reason: "is \"fresh\", which starts VMMs, and another program runs this VMM: set \"in_place\""
                    .to_owned(),
            });
        }
        Ok(Self::of(Settings {
            config,
            source,
            needs_kvm,
            shared,
        }))
    }

    fn of(settings: Settings) -> Self {
        ChvSandbox {
            settings: Arc::new(settings),
            status: Arc::default(),
            calls: CallActivity::default(),
            stops: Shutdowns::default(),
            driver: Mutex::default(),
        }
    }

    /// Begins a tool: takes the channel for it, which may change the state to `NeedsReset`, and reports its start.
    fn begin_tool(
        &self,
        names: (&str, &str),
        deadline: Duration,
    ) -> Result<(Channel, ToolInFlight), Error> {
        let per_reset = self.settings.config.tools_per_reset;
        let channel = self.status.begin_tool(per_reset)?;
        let number = channel.origin().channel;
        let call = self.calls.tool();
        let in_flight = ToolInFlight::begin(&self.status, number, names, deadline, call);
        Ok((channel, in_flight))
    }

    /// Runs `transfer` on the present channel, ends it if that channel is closed on this side, and reports its end.
    async fn transfer<T>(
        &self,
        direction: Direction,
        path: &str,
        transfer: impl FnOnce(Channel, Uuid) -> T,
    ) -> Result<TransferReport, Error>
    where
        T: Future<Output = Result<TransferReport, Error>> + Send,
    {
        let channel = self.status.for_files(direction)?;
        let number = channel.origin().channel;
        let mut begun = Transfer::begin(&self.status, direction, path, self.calls.tool());
        let result = tokio::select! {
            biased;
            why = Arc::clone(&self.status).closed(number) => Err(why),
            result = transfer(channel, begun.id()) => match result {
                Err(Error::Channel(error)) => {
                    Err(self.status.closed_error(number).unwrap_or(Error::Channel(error)))
                }
                result => result,
            },
        };
        begun.emit(&result);
        result
    }

    /// Waits until the sandbox leaves the state `Ready`.
    pub(super) async fn no_longer_ready(self: Arc<Self>) {
        self.status.no_longer_ready().await;
    }

    /// The driver's inbox. The first call starts the task, as does a call after the runtime of the task is gone.
    fn driver(&self) -> mpsc::Sender<Request> {
        let mut driver = lock(&self.driver);
        if let Some(driver) = &*driver
            && !driver.requests.is_closed()
        {
            return driver.requests.clone();
        }
        let (requests, mut inbox) = mpsc::channel(REQUESTS);
        let (settings, status) = (Arc::clone(&self.settings), Arc::clone(&self.status));
        let task = Driver::new(settings, status, self.calls.clone());
        let stops = self.stops.clone();
        // `task` owns the machine, and the inbox outlives it: a closed inbox says that the machine is dropped.
        let task = tokio::spawn(async move { task.run(&mut inbox, stops).await });
        *driver = Some(RunningDriver {
            requests: requests.clone(),
            task: task.abort_handle(),
        });
        requests
    }

    /// Sends a request to the driver and waits for the answer.
    async fn ask<T>(
        &self,
        what: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Call,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            what: what(reply),
            stops: self.stops.asked(),
        };
        // No answer comes if the driver's runtime is shut down meanwhile. That releases everything, as a shutdown does.
        match self.driver().send(request).await {
            Ok(()) => answer.await.unwrap_or(Err(Error::ShutDown)),
            Err(_) => Err(Error::ShutDown),
        }
    }
}

#[async_trait]
impl Sandbox for ChvSandbox {
    async fn boot(&self) -> Result<(), Error> {
        self.ask(Call::Boot).await
    }

    async fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error> {
        let deadline = invocation.deadline();
        let dispatch = ToolDispatch::try_from(invocation)?;
        let names = (dispatch.command_id.as_str(), dispatch.tool.as_str());
        let (channel, in_flight) = self.begin_tool(names, deadline)?;
        let grace = self.settings.config.limits.tool_grace;
        let answered = channel.dispatch(dispatch, grace).await;
        let took = in_flight.elapsed();
        let execution = answered.map(|answer| ToolExecution::answered(answer, took));
        in_flight.conclude(execution.map_err(Error::Channel))
    }

    async fn start(&self, invocation: ToolInvocation) -> Result<RunningTool, Error> {
        let deadline = invocation.deadline();
        let open = OpenRun::try_from(invocation)?;
        let names = (open.command_id.as_str(), open.tool.as_str());
        let (channel, in_flight) = self.begin_tool(names, deadline)?;
        let grace = self.settings.config.limits.tool_grace;
        let (command_id, stdin) = (open.command_id.clone(), open.stdin);
        let status = Arc::clone(&self.status);
        let closed = status.closed(channel.origin().channel);
        let mut closed = Box::pin(closed);
        let opened = tokio::select! {
            opened = channel.open_run(open) => opened.map_err(Error::Channel),
            error = &mut closed => Err(error),
        };
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => return Err(in_flight.refuse(error)),
        };
        let terms = RunLimits {
            command_id,
            limit: deadline
                .saturating_add(grace)
                .saturating_sub(in_flight.elapsed()),
            grace,
        };
        let name = stream.name.take();
        let conclude = Box::new(|ended| {
            drop(name);
            in_flight.conclude(ended)
        });
        Ok(RunningTool::begin(
            stream,
            stdin,
            terms,
            closed,
            Some(conclude),
        ))
    }

    async fn push(
        &self,
        local: &Path,
        path: &str,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        let limits = &self.settings.config.limits;
        self.transfer(Direction::Push, path, |channel, id| async move {
            transfer::push(&channel, id, local, path, options, limits).await
        })
        .await
    }

    async fn pull(
        &self,
        path: &str,
        local: &Path,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        let limits = &self.settings.config.limits;
        self.transfer(Direction::Pull, path, |channel, id| async move {
            transfer::pull(&channel, id, path, local, options, limits).await
        })
        .await
    }

    async fn reset(&self) -> Result<Reset, Error> {
        self.ask(Call::Reset).await
    }

    async fn shutdown(&self) {
        let driver = self.driver();
        tokio::select! {
            () = self.stops.stop() => {}
            // The driver's runtime was shut down, which releases everything.
            () = driver.closed() => {}
        }
    }

    fn state(&self) -> SandboxState {
        self.status.state()
    }

    fn backend(&self) -> Backend {
        Backend::Chv
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.status.events().subscribe()
    }
}

impl fmt::Debug for ChvSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChvSandbox")
            .field("state", &self.state())
            .field("config", &self.settings.config)
            .finish_non_exhaustive()
    }
}
