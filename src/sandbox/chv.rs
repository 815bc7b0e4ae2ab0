//! The sandbox on Cloud Hypervisor: the handle, by which callers reach its driver.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::calls::Calls;
use super::driver::{Asked, Driver, Given, Request, Settings, Stops};
use super::in_flight::ToolInFlight;
use super::running::Terms;
use super::status::Status;
use super::supply::Supply;
use super::transfer::{self, Files, Transfer};
use super::{
    Backend, ConfigError, Error, Event, Reset, RunningTool, Sandbox, SandboxConfig, SandboxOrigin,
    SandboxState, Strategy, ToolExecution, ToolInvocation, TransferOptions, TransferReport,
};
use crate::broadcast;
use crate::golden::{LoadedGolden, MemoryBasis};
use crate::guest::protocol::{OpenRun, ToolDispatch};
use crate::machine::VmmSource;
use crate::vsock::Channel;

/// How many boots and resets may wait for their turn; the callers of further ones wait to be heard.
const REQUESTS: usize = 64;

/// A sandbox in a microVM on Cloud Hypervisor.
///
/// With a golden snapshot, `boot` restores and verifies it just as `reset` does. Dropping the sandbox kills its VMMs and
/// removes what they left, as soon as its runtime comes to it, and so does dropping the runtime; `shutdown` does the same
/// and waits for it.
///
/// Its calls are carried out by one task, which lives on the runtime of the first call.
pub struct ChvSandbox {
    settings: Arc<Settings>,
    status: Arc<Status>,
    calls: Calls,
    stops: Stops,
    driver: Mutex<Option<RunningDriver>>,
}

/// The task, which ends with this.
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
    /// A sandbox as configured, on VMMs that it spawns itself. Nothing is started yet.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`].
    pub fn new(config: SandboxConfig) -> Result<Self, ConfigError> {
        let source = VmmSource::Spawn(config.vmm_config());
        Self::build(config, source, None, true)
    }

    /// A sandbox of a pool.
    pub(super) fn of_pool(config: SandboxConfig, source: VmmSource, supply: Arc<Supply>) -> Self {
        let settings = Settings {
            config,
            source,
            needs_kvm: false,
            given: Some(Given::Supply(Arc::clone(&supply))),
        };
        ChvSandbox {
            calls: supply.calls.clone(),
            ..Self::of(settings)
        }
    }

    /// The same on a golden snapshot that was loaded before, so that several sandboxes of a process share its memory and
    /// its verification. What the configuration says of the golden snapshot isn't used: `directory`, `digest`,
    /// `public_key`, `memory`, `memory_limit_mib`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`], also for scaffold mode, and for a golden snapshot that was loaded for a VMM that another
    /// program runs.
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
                    reason: "has no golden snapshot, and one is given".to_owned(),
                });
            }
        }
        let source = VmmSource::Spawn(config.vmm_config());
        Self::build(config, source, Some(Given::Golden(golden)), true)
    }

    /// A sandbox on VMMs that are described elsewhere: one that another program runs, such as a player of
    /// recordings, or processes with more settings than a configuration has. Of the configuration's settings of the VMM's
    /// process only `limits` are used, and whether there is a KVM is left for the VMM to say. On a VMM that another program runs,
    /// the checks that need its process are reported as not applicable, and the only strategy is [`Strategy::InPlace`].
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`].
    pub fn with_vmm(config: SandboxConfig, source: VmmSource) -> Result<Self, ConfigError> {
        Self::build(config, source, None, false)
    }

    fn build(
        config: SandboxConfig,
        source: VmmSource,
        given: Option<Given>,
        needs_kvm: bool,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        if let VmmSource::Attach { .. } = source
            && config.strategy_on(&source) == Strategy::Fresh
        {
            return Err(ConfigError::Invalid {
                field: "golden.strategy",
                reason: "starts other VMMs, and another program runs this one".to_owned(),
            });
        }
        Ok(Self::of(Settings {
            config,
            source,
            needs_kvm,
            given,
        }))
    }

    fn of(settings: Settings) -> Self {
        ChvSandbox {
            settings: Arc::new(settings),
            status: Arc::default(),
            calls: Calls::default(),
            stops: Stops::default(),
            driver: Mutex::default(),
        }
    }

    /// Begins a tool: its channel, and what it means for the sandbox.
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

    /// Has `transfer` use the channel, until that is closed here, and tells of its end.
    async fn transfer<T>(
        &self,
        direction: Files,
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
                    Err(self.status.why_closed(number).unwrap_or(Error::Channel(error)))
                }
                result => result,
            },
        };
        begun.tell(&result);
        result
    }

    /// Waits until it isn't ready any more.
    pub(super) async fn no_longer_ready(self: Arc<Self>) {
        self.status.no_longer_ready().await;
    }

    /// The driver's inbox. The task is started by the first call, and again when the runtime is gone that it lived on.
    fn driver(&self) -> mpsc::Sender<Request> {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = &*driver
            && !driver.requests.is_closed()
        {
            return driver.requests.clone();
        }
        let (requests, mut inbox) = mpsc::channel(REQUESTS);
        let (settings, status) = (Arc::clone(&self.settings), Arc::clone(&self.status));
        let task = Driver::new(settings, status, self.calls.clone());
        let stops = self.stops.clone();
        // The inbox closes when the driver has gone, with the machine that served.
        let task = tokio::spawn(async move { task.run(&mut inbox, stops).await });
        *driver = Some(RunningDriver {
            requests: requests.clone(),
            task: task.abort_handle(),
        });
        requests
    }

    /// Has the driver do something, and waits for its answer.
    async fn ask<T>(
        &self,
        what: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Asked,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            what: what(reply),
            stops: self.stops.asked(),
        };
        // Where the driver's runtime is shut down meanwhile, everything is released.
        match self.driver().send(request).await {
            Ok(()) => answer.await.unwrap_or(Err(Error::ShutDown)),
            Err(_) => Err(Error::ShutDown),
        }
    }
}

#[async_trait]
impl Sandbox for ChvSandbox {
    async fn boot(&self) -> Result<(), Error> {
        self.ask(Asked::Boot).await
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
        let terms = Terms {
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
        self.transfer(Files::Push, path, |channel, id| async move {
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
        self.transfer(Files::Pull, path, |channel, id| async move {
            transfer::pull(&channel, id, path, local, options, limits).await
        })
        .await
    }

    async fn reset(&self) -> Result<Reset, Error> {
        self.ask(Asked::Reset).await
    }

    async fn shutdown(&self) {
        let driver = self.driver();
        tokio::select! {
            () = self.stops.stop() => {}
            // With its runtime everything is released.
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
