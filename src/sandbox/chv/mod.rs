//! The sandbox on Cloud Hypervisor.

mod boot;
mod replace;
mod reset;
mod reset_target;
mod retired;
mod spares;
mod status;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, MutexGuard, watch as watched};
use tracing::Instrument;

use super::span;
use super::{
    Backend, ConfigError, Error, Event, Reset, Sandbox, SandboxConfig, SandboxState, Strategy,
    ToolExecution, ToolInvocation,
};
use crate::broadcast::{self, Capacity};
use crate::causes::Causes;
use crate::golden::{LoadedGolden, MemoryBasis};
use crate::machine::{Machine, VmmSource};
use crate::vsock;
pub use boot::OLDEST_RELEASE;
use reset_target::ResetTarget;
use retired::Retired;
use spares::Spares;
use status::{Abandoned, Status};
use watch::Watcher;

/// How far a slow subscriber may fall behind.
const EVENTS: Capacity = Capacity {
    count: 256,
    bytes: 8 << 20,
};

/// A sandbox in a microVM on Cloud Hypervisor.
///
/// With a golden snapshot, `boot` restores and verifies it just as `reset` does. Dropping the sandbox kills its
/// VMM and removes what it wrote; `shutdown` does the same in order.
pub struct ChvSandbox {
    shared: Arc<Shared>,
}

struct Shared {
    config: SandboxConfig,
    source: VmmSource,
    /// Whether a boot looks for KVM before it starts anything.
    needs_kvm: bool,
    status: Arc<Status>,
    /// The golden snapshot, where it was loaded before and is shared.
    golden: Option<Arc<LoadedGolden>>,
    /// Held for as long as the machine is changed: one boot, reset or shutdown at a time.
    machine: Mutex<Option<Running>>,
    /// Counts the shutdowns; a boot or reset that sees it change gives up.
    shutdowns: watched::Sender<u64>,
    /// How many boots and resets are under way or wait for their turn.
    busy: watched::Sender<usize>,
    spares: Spares,
    /// The VMMs that were replaced.
    retired: Retired,
}

/// What there is between boot and shutdown.
struct Running {
    machine: Machine,
    /// Its VMM gave no answer in time, and was killed: only another machine can be reverted.
    given_up: bool,
    /// Absent in scaffold mode.
    target: Option<Arc<ResetTarget>>,
    watcher: Watcher,
    /// Watches the golden snapshot's files that the VM reads while it lives.
    golden_watcher: Option<Watcher>,
}

/// The right to change the machine. If its holder gives up on the way, the sandbox has failed: nobody knows
/// how far it came.
struct Turn<'a> {
    /// Dropped first: what it says is said before anybody else has a turn.
    abandoned: Abandoned<'a>,
    machine: MutexGuard<'a, Option<Running>>,
    shutdowns: watched::Receiver<u64>,
    _busy: Busy<'a>,
}

/// Keeps the refill of spares out of the way.
struct Busy<'a>(&'a watched::Sender<usize>);

impl<'a> Busy<'a> {
    fn begin(count: &'a watched::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Busy(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl ChvSandbox {
    /// A sandbox as configured, on a VMM that it spawns itself. Nothing is started yet.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`].
    pub fn new(config: SandboxConfig) -> Result<Self, ConfigError> {
        let source = VmmSource::Spawn(config.vmm_config());
        Self::build(config, source, None, true)
    }

    /// The same on a golden snapshot that was loaded before, so that several sandboxes of a process share its memory and
    /// its verification. What the configuration says of the golden snapshot isn't used: `golden`, `golden_digest`,
    /// `public_key`, `memory`, `golden_memory_limit_mib`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`], for a golden snapshot too that was loaded for a VMM of another program.
    pub fn with_loaded(
        config: SandboxConfig,
        golden: Arc<LoadedGolden>,
    ) -> Result<Self, ConfigError> {
        if golden.memory().basis == MemoryBasis::Unproved {
            return Err(ConfigError::Invalid {
                field: "golden",
                reason: "was loaded for a VMM that another program runs".to_owned(),
            });
        }
        let config = SandboxConfig {
            golden: Some(golden.golden().directory().to_owned()),
            ..config
        };
        let source = VmmSource::Spawn(config.vmm_config());
        Self::build(config, source, Some(golden), true)
    }

    /// A sandbox on a VMM that is described elsewhere: one that another program runs, such as a player of
    /// recordings, or a process with more settings than a configuration has. The configuration's `vmm`, `vmm_env`
    /// and `run_root` aren't used, and whether there is a KVM is left for the VMM to say. On a VMM that another program runs, what needs its process is reported as not
    /// applicable, and the only strategy is [`Strategy::InPlace`].
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
        golden: Option<Arc<LoadedGolden>>,
        needs_kvm: bool,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        if let VmmSource::Attach { .. } = source
            && config.strategy != Strategy::InPlace
        {
            return Err(ConfigError::Invalid {
                field: "strategy",
                reason: "starts other VMMs, and this one is somebody else's".to_owned(),
            });
        }
        Ok(ChvSandbox {
            shared: Arc::new(Shared {
                config,
                source,
                needs_kvm,
                status: Arc::new(Status::new(EVENTS)),
                golden,
                machine: Mutex::new(None),
                shutdowns: watched::Sender::new(0),
                busy: watched::Sender::new(0),
                spares: Spares::default(),
                retired: Retired::default(),
            }),
        })
    }
}

impl Shared {
    /// Waits until nobody else changes the machine.
    async fn turn(&self) -> Turn<'_> {
        let shutdowns = self.shutdowns.subscribe();
        let busy = Busy::begin(&self.busy);
        let machine = self.machine.lock().await;
        Turn {
            abandoned: self.status.fail_unless_finished(),
            machine,
            shutdowns,
            _busy: busy,
        }
    }

    async fn shutdown(&self) {
        self.shutdowns.send_modify(|count| *count += 1);
        let mut machine = self.machine.lock().await;
        self.status.close_channel();
        self.clear(&mut machine).await;
        self.status.rest();
    }

    /// Stops whatever there is.
    async fn clear(&self, slot: &mut Option<Running>) {
        self.spares.stop(&self.retired).await;
        if let Some(running) = slot.take() {
            let report = running.stop().await;
            tracing::debug!(?report, "the VMM has ended");
        }
        self.retired.gone().await;
    }

    fn grace(&self) -> Duration {
        Duration::from_millis(self.config.timeouts.grace_ms)
    }
}

#[async_trait]
impl Sandbox for ChvSandbox {
    async fn boot(&self) -> Result<(), Error> {
        let mut turn = self.shared.turn().await;
        let result = tokio::select! {
            result = self.shared.boot(&mut turn.machine) => result,
            _ = turn.shutdowns.changed() => Err(Error::ShutDown),
        };
        turn.abandoned.finished();
        result
    }

    async fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error> {
        let deadline = Duration::from_millis(invocation.deadline_ms);
        let dispatch = invocation.try_into()?;
        let (channel, generation) = self.shared.status.channel_for_tool()?;
        let in_flight = self.shared.status.tool_in_flight(generation);
        let result = channel.dispatch(dispatch, self.shared.grace()).await;
        match result {
            Ok(result) => {
                in_flight.has_ended();
                Ok(ToolExecution::from(result))
            }
            Err(source @ vsock::Error::ToolTimeout { .. }) => {
                in_flight.needs_reset("a tool gave no answer in time");
                Err(Error::ToolTimeout { deadline, source })
            }
            Err(source @ vsock::Error::Evidence { .. }) => {
                in_flight.needs_reset("the evidence of a tool was not to be believed");
                Err(Error::Channel(source))
            }
            // It was never sent, or the channel is closed, which says more.
            Err(source) => {
                in_flight.has_ended();
                Err(Error::Channel(source))
            }
        }
    }

    async fn reset(&self) -> Result<Reset, Error> {
        let mut turn = self.shared.turn().await;
        let span = span::reset();
        let result = tokio::select! {
            result = self.shared.reset(&mut turn.machine).instrument(span.clone()) => result,
            _ = turn.shutdowns.changed() => Err(Error::ShutDown),
        };
        span::record(&span, &result);
        turn.abandoned.finished();
        result
    }

    async fn shutdown(&self) {
        let shared = Arc::clone(&self.shared);
        // A task of its own, so that a shutdown goes on to its end although its caller gave up waiting.
        let done = tokio::spawn(async move { shared.shutdown().await }).await;
        if let Err(error) = done {
            tracing::error!(error = %Causes(&error), "the shutdown did not come to its end");
        }
    }

    fn state(&self) -> SandboxState {
        self.shared.status.state()
    }

    fn backend(&self) -> Backend {
        Backend::Chv
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.shared.status.subscribe()
    }
}

impl fmt::Debug for ChvSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChvSandbox")
            .field("state", &self.state())
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}
