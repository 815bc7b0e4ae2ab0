//! A pool: clean sandboxes of one golden snapshot, handed out one to a caller.
//!
//! ```text
//!              boot                 acquire                  recycle, drop
//!   (nothing) ------> clean, waits ---------> with a caller --------------> being reset
//!      ^                   ^                        |                        |     |
//!      |                   +------------------------|-- verified ------------+     |
//!      |                                            | the golden snapshot was      | diverged, silent twice,
//!      +--------------------------------------------+ replaced, the pool closes    | not reverted
//!      +---------------------------------------------------------------------------+ discarded
//! ```
//!
//! [`Pool`] opens the golden snapshot once. Its sandboxes are [`ChvSandbox`]es that share it and its spares. Each was
//! verified when it was booted, or when it was reset after its last caller; one whose reset was not verified is never handed
//! out again. Two such resets in a row, of different sandboxes, halt the pool: then it isn't a guest that lies, but a host or
//! a golden snapshot that isn't what it was.
//!
//! One task keeps the pool. Callers are served in the order in which they ask. A call that is dropped loses its place, and a
//! sandbox that is dropped is reset.

mod budget;
mod config;
mod keeper;
mod request;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::events::Events;
use super::supply;
use super::{ChvSandbox, Error, Event, Reset};
use crate::broadcast;
use crate::golden::LoadedGolden;
use crate::machine::VmmSource;
use crate::vmm::VmmConfig;

use budget::Budget;
use keeper::Keeper;
use request::{Member, Request};

pub use budget::VmMemory;
pub use config::PoolConfig;

/// Clean sandboxes of one golden snapshot.
///
/// A clone is another handle of the same pool. Dropping the last one kills every VMM of the pool, but for those of
/// sandboxes that callers have; these go when their callers drop them. [`shutdown`](Self::shutdown) ends all and waits for it.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use chv_sandbox::sandbox::{Pool, PoolConfig, Sandbox, SandboxConfig, ToolInvocation};
///
/// let config = SandboxConfig::golden("/var/lib/agent/golden");
/// let pool = Pool::open(PoolConfig::new(config).size(8)).await?;
/// let sandbox = pool.acquire(Duration::from_secs(5)).await?;
/// let invocation = ToolInvocation::new("echo", serde_json::json!({ "message": "hello" }));
/// let execution = sandbox.execute_tool(invocation).await?;
/// sandbox.recycle().await?;
/// pool.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// What the handles of a pool share with its task.
struct Shared {
    config: PoolConfig,
    requests: mpsc::UnboundedSender<Request>,
    status: watch::Receiver<PoolStatus>,
    events: Arc<Events>,
}

/// Where a pool stands.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Clean sandboxes that wait for a caller.
    pub idle: usize,
    /// Sandboxes that callers have.
    pub acquired: usize,
    /// Sandboxes that are being booted, reset or discarded.
    pub in_progress: usize,
    /// Callers that wait for a sandbox.
    pub waiting: usize,
    /// Why the last sandbox that was booted or reset is not to be used; `None` once another one is.
    pub last_error: Option<Arc<Error>>,
    /// The most memory that the pool's golden snapshots and VMMs may take together, in bytes.
    pub memory_bytes: u64,
    /// Whether the pool hands out no sandbox any more: it was drained, shut down, or has halted.
    pub closed: bool,
}

impl Pool {
    /// Opens the golden snapshot of the configuration, and begins to boot [`idle`](PoolConfig::idle) sandboxes. The pool's
    /// task lives on the runtime of this call.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a configuration that can't be, and for a budget of memory that its sandboxes don't fit into;
    /// [`Error::BootFailed`] for a golden snapshot that can't be used; [`Error::NotAvailable`] where there is no KVM.
    pub async fn open(config: PoolConfig) -> Result<Pool, Error> {
        config.check()?;
        let vmm = config.sandbox.vmm_config();
        super::driver::check_kvm()?;
        let source = VmmSource::Spawn(vmm.clone());
        let golden = supply::load(config.golden()?, &source).await?;
        Pool::start(config, vmm, golden)
    }

    /// The same on a golden snapshot that was loaded before, and on VMMs that are spawned as `vmm` says. What the
    /// configuration says of the golden snapshot and of VMMs isn't used.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], for a golden snapshot too that was loaded for a VMM of another program.
    pub fn with_loaded(
        config: PoolConfig,
        vmm: VmmConfig,
        golden: Arc<LoadedGolden>,
    ) -> Result<Pool, Error> {
        config.check()?;
        Pool::start(config, vmm, golden)
    }

    fn start(config: PoolConfig, vmm: VmmConfig, golden: Arc<LoadedGolden>) -> Result<Pool, Error> {
        check_shareable(&golden)?;
        let budget = Budget::of(&config, &vmm)?;
        let memory = budget.check(&[&golden])?;
        let events: Arc<Events> = Arc::default();
        let (requests, inbox) = mpsc::unbounded_channel();
        let (status, seen) = watch::channel(PoolStatus::default());
        let told = Arc::clone(&events);
        let handles = requests.downgrade();
        let keeper = Keeper::new(
            config.clone(),
            VmmSource::Spawn(vmm),
            golden,
            told,
            status,
            (budget, memory),
            handles,
        )?;
        tokio::spawn(keeper.run(inbox));
        Ok(Pool {
            shared: Arc::new(Shared {
                config,
                requests,
                status: seen,
                events,
            }),
        })
    }

    /// A clean, verified sandbox, as soon as there is one, for this caller alone. Callers are served in order. Give it back
    /// with [`recycle`](PooledSandbox::recycle), or drop it. If the returned future is dropped, nothing is handed out.
    ///
    /// # Errors
    ///
    /// - [`Error::AcquireTimeout`]: none was there within `deadline`.
    /// - [`Error::PoolClosed`]: the pool is drained or shut down.
    /// - [`Error::Halted`]: two resets in a row were not verified; [`Error::failed_reset`] has the last one.
    /// - [`Error::NotAvailable`], [`Error::BootFailed`] and others whose [advice](Error::advice) is to give up: no sandbox of
    ///   this golden snapshot can be booted here.
    pub async fn acquire(&self, deadline: Duration) -> Result<PooledSandbox, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Acquire(reply))?;
        match timeout(deadline, answer).await {
            Ok(acquired) => acquired.unwrap_or(Err(Error::PoolClosed)),
            Err(_) => Err(Error::AcquireTimeout {
                waited: deadline,
                source: self.status().last_error,
            }),
        }
    }

    /// New sandboxes are of `golden` from now on. Those that wait are discarded; those that callers have stay as they are, and
    /// are discarded when they are given back. The golden snapshot that was replaced is let go after the last of them.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when both golden snapshots and the sandboxes don't fit into the budget of memory at the same time,
    /// and for one that was loaded for a VMM of another program; [`Error::PoolClosed`].
    pub async fn replace_golden(&self, golden: Arc<LoadedGolden>) -> Result<(), Error> {
        check_shareable(&golden)?;
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Replace { golden, reply })?;
        answer.await.unwrap_or(Err(Error::PoolClosed))
    }

    /// Hands out no sandbox any more, and waits until all that were handed out are given back and every VMM has ended. Callers
    /// that wait are told. Goes on if the returned future is dropped.
    pub async fn drain(&self) {
        let (reply, answer) = oneshot::channel();
        if self.ask(Request::Drain(reply)).is_ok() {
            // An error says that the pool's runtime is gone, and with it every VMM.
            let _ = answer.await;
        }
    }

    /// Hands out no sandbox any more, shuts down all that there are, those of callers too, and waits until every VMM has
    /// ended. Idempotent; goes on if the returned future is dropped.
    pub async fn shutdown(&self) {
        let (reply, answer) = oneshot::channel();
        if self.ask(Request::Shutdown(reply)).is_ok() {
            // An error says that the pool's runtime is gone, and with it every VMM.
            let _ = answer.await;
        }
    }

    /// Where the pool stands.
    pub fn status(&self) -> PoolStatus {
        self.shared.status.borrow().clone()
    }

    /// Waits until the pool stands as `condition` wants it, for one until all sandboxes that are to wait for callers do. Returns
    /// at once where it does, and also when the pool's runtime is gone.
    pub async fn wait_until(&self, condition: impl Fn(&PoolStatus) -> bool) {
        let mut status = self.shared.status.clone();
        // An error says that the task is gone.
        let _ = status.wait_for(condition).await;
    }

    /// What happens in the pool from now on: sandboxes that are acquired and released, and spares. What happens in a sandbox,
    /// its own [`subscribe`](super::Sandbox::subscribe) tells.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    fn ask(&self, request: Request) -> Result<(), Error> {
        let sent = self.shared.requests.send(request);
        sent.map_err(|_| Error::PoolClosed)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("status", &self.status())
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

/// A sandbox that a pool handed out. It is used as a [`Sandbox`](super::Sandbox) is; given back with
/// [`recycle`](Self::recycle) or dropped, it is reset for the next caller.
pub struct PooledSandbox {
    /// There until it is given back.
    member: Option<Member>,
    /// Not a handle of the pool: it may go while callers have sandboxes.
    requests: mpsc::WeakUnboundedSender<Request>,
}

impl PooledSandbox {
    fn new(member: Member, requests: mpsc::WeakUnboundedSender<Request>) -> Self {
        PooledSandbox {
            member: Some(member),
            requests,
        }
    }

    /// The sandbox's number in its pool, from 1: the one in the pool's events.
    pub fn number(&self) -> u64 {
        self.member().number
    }

    /// Gives the sandbox back, and waits for its reset. If the returned future is dropped, the reset goes on.
    ///
    /// # Errors
    ///
    /// Those of [`reset`](super::Sandbox::reset), after which the pool has discarded the sandbox. [`Error::PoolClosed`] where
    /// the pool discards it without a reset, since it closes or has another golden snapshot by now.
    pub async fn recycle(mut self) -> Result<Reset, Error> {
        let (reply, answer) = oneshot::channel();
        self.give_back(Some(reply));
        answer.await.unwrap_or(Err(Error::PoolClosed))
    }

    fn member(&self) -> &Member {
        self.member
            .as_ref()
            .expect("it is there until it is given back")
    }

    fn give_back(&mut self, reply: Option<oneshot::Sender<Result<Reset, Error>>>) {
        // Where the pool is gone, the sandbox is dropped here, which kills its VMM.
        if let Some(member) = self.member.take()
            && let Some(requests) = self.requests.upgrade()
        {
            let _ = requests.send(Request::Release { member, reply });
        }
    }
}

impl Deref for PooledSandbox {
    type Target = ChvSandbox;

    fn deref(&self) -> &ChvSandbox {
        &self.member().sandbox
    }
}

impl Drop for PooledSandbox {
    fn drop(&mut self) {
        self.give_back(None);
    }
}

impl fmt::Debug for PooledSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledSandbox")
            .field("number", &self.number())
            .field("sandbox", &**self)
            .finish()
    }
}

/// Refuses a golden snapshot that VMMs of ours can't share.
fn check_shareable(golden: &LoadedGolden) -> Result<(), Error> {
    match golden.memory().basis {
        crate::golden::MemoryBasis::Unproved => Err(config::invalid(
            "golden",
            "was loaded for a VMM that another program runs",
        )),
        _ => Ok(()),
    }
}
