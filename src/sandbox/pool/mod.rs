//! [`Pool`]: keeps clean sandboxes of one golden snapshot ready, and hands out one to each caller.
//!
//! ```text
//!              boot          acquire               recycle, drop
//!   (nothing) ------> idle ----------> acquired --------------------> being reset
//!                      ^                  |                             |    |
//!                      +------------------|--------- verified ----------+    |
//!                                         |                                  |
//!                                         | the golden snapshot was          | the reset failed or was not verified,
//!                                         | replaced, or the pool closes     | or one of the reasons on the left
//!                                         +----> discarded <-----------------+
//! ```
//!
//! The pool opens the golden snapshot once. Its sandboxes are [`ChvSandbox`]es that share it, and share its spares.
//! Every sandbox that is handed out was verified when it was booted, or when it was reset after its last caller. A
//! sandbox whose reset was not verified is never handed out again. Two unverified resets in a row, of different
//! sandboxes, halt the pool: the cause is then probably not one guest but the host or the golden snapshot. Every
//! `acquire`, also one that waits, then fails with [`Error::PoolHalted`].
//!
//! One task keeps the pool. It serves callers in the order of their calls. A caller that drops its call loses its
//! place. A sandbox that its caller drops is reset.

mod budget;
mod config;
mod request;
mod task;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::event_sender::Events;
use super::shared_target;
use super::{ChvSandbox, Error, Event, Reset};
use crate::broadcast;
use crate::golden::LoadedGolden;
use crate::machine::VmmSource;
use crate::vmm::VmmConfig;

use budget::Budget;
use request::{Member, Request};
use task::PoolTask;

pub use budget::MemoryPerVm;
pub use config::PoolConfig;

/// A pool of clean sandboxes of one golden snapshot.
///
/// A pool boots sandboxes ahead, so [`acquire`](Self::acquire) usually returns at once with a sandbox that was verified
/// and that this caller alone uses. When the caller gives the sandbox back, the pool resets it in the background for
/// the next caller. The sandboxes share the golden snapshot's memory, and the pool refuses to open if all of them
/// together don't fit into its [budget of memory](PoolConfig::memory_limit_mib).
///
/// A clone is another handle of the same pool. Dropping the last handle kills every VMM of the pool, except those of
/// sandboxes that callers have: they end when the callers drop them. [`shutdown`](Self::shutdown) ends all VMMs and
/// waits for their end.
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
/// // Use the output only once the reset was verified.
/// sandbox.recycle().await?;
/// println!("{}", execution.stdout.text());
/// pool.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// # Tests without KVM
///
/// A pool starts its own VMMs, so neither a [`StubSandbox`](super::StubSandbox) nor a
/// [`ReplaySandbox`](crate::replay::ReplaySandbox) can be in it. Keep the code that uses one sandbox apart from the
/// code that acquires and recycles it. A function that takes `&dyn Sandbox` is tested with a stub or a recording, and
/// gets `&*sandbox` of a [`PooledSandbox`] in production:
///
/// ```
/// use std::time::Duration;
/// use chv_sandbox::sandbox::{Error, Pool, Sandbox, StubSandbox, ToolInvocation};
///
/// async fn greet(sandbox: &dyn Sandbox) -> Result<String, Error> {
///     let invocation = ToolInvocation::new("echo", serde_json::json!({ "message": "hello" }));
///     let execution = sandbox.execute_tool(invocation).await?;
///     Ok(execution.stdout.text().into_owned())
/// }
///
/// // This part needs KVM, and is the same for every dispatch.
/// async fn greet_in(pool: &Pool) -> Result<String, Error> {
///     let sandbox = pool.acquire(Duration::from_secs(5)).await?;
///     let greeting = greet(&*sandbox).await?;
///     sandbox.recycle().await?;
///     Ok(greeting)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// // The test.
/// let stub = StubSandbox::default();
/// stub.boot().await?;
/// assert_eq!(greet(&stub).await?, "hello\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// What all handles of a pool share.
struct Shared {
    config: PoolConfig,
    requests: mpsc::UnboundedSender<Request>,
    status: watch::Receiver<PoolStatus>,
    events: Arc<Events>,
}

/// The status of a pool at one moment: see [`Pool::status`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PoolStatus {
    /// The number of clean sandboxes that wait for a caller.
    pub idle: usize,
    /// The number of sandboxes that callers have.
    pub acquired: usize,
    /// The number of sandboxes that are being booted, reset or discarded.
    pub in_progress: usize,
    /// The number of callers that wait for a sandbox.
    pub waiting: usize,
    /// The error of the last boot or reset that failed. `None` once a later one has succeeded.
    pub last_error: Option<Arc<Error>>,
    /// The most memory that the pool's golden snapshots and VMMs may take together, in bytes.
    pub memory_bytes: u64,
    /// Whether the pool hands out no sandbox any more, because it was drained, was shut down, or has halted.
    pub closed: bool,
}

impl Pool {
    /// Opens, verifies and loads the golden snapshot of the configuration, and begins to boot
    /// [`idle`](PoolConfig::idle) sandboxes in the background. The pool's task lives on the tokio runtime of this call.
    ///
    /// # Errors
    ///
    /// - [`Error::Config`]: a value of the configuration is not allowed, or the sandboxes don't fit into the budget of
    ///   memory.
    /// - [`Error::BootFailed`]: the golden snapshot, or the directory for the VMMs' run directories, can't be used.
    /// - [`Error::NotAvailable`]: this process can't use KVM.
    pub async fn open(config: PoolConfig) -> Result<Pool, Error> {
        config.check()?;
        let vmm = config.sandbox.vmm_config();
        super::driver::check_kvm()?;
        let source = VmmSource::Spawn(vmm.clone());
        let golden = shared_target::load(config.golden()?, &source).await?;
        Pool::start(config, vmm, golden)
    }

    /// Opens a pool on a golden snapshot that is loaded already, and on VMMs that are started with the settings of
    /// `vmm`. The settings of the configuration that say how to load the golden snapshot and how to start VMMs are
    /// ignored. Doesn't check for KVM. Must be called inside a tokio runtime, on which the pool's task then lives.
    ///
    /// # Errors
    ///
    /// - [`Error::Config`]: a value of the configuration is not allowed, the sandboxes don't fit into the budget of
    ///   memory, or `golden` was loaded for a VMM that another program runs.
    /// - [`Error::BootFailed`]: the directory for the VMMs' run directories can't be used.
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
        let keeper = PoolTask::new(
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

    /// Waits for a clean, verified sandbox, which this caller alone uses. Callers are served in the order of their
    /// calls. Give the sandbox back with [`recycle`](PooledSandbox::recycle), or drop it. If the returned future is
    /// dropped, no sandbox is taken.
    ///
    /// # Errors
    ///
    /// - [`Error::AcquireTimeout`]: no sandbox was clean within `deadline`.
    /// - [`Error::PoolClosed`]: the pool was drained or shut down.
    /// - [`Error::PoolHalted`]: two resets in a row were not verified; [`Error::failed_reset`] has the second one.
    /// - [`Error::NotAvailable`], [`Error::BootFailed`] and other errors whose [advice](Error::advice) is
    ///   [`GiveUp`](super::Advice::GiveUp): no sandbox of this golden snapshot can be booted here.
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

    /// Replaces the pool's golden snapshot: sandboxes that are booted from now on are of `golden`.
    ///
    /// Idle sandboxes of the old golden snapshot are discarded at once. Sandboxes that callers have stay as they are,
    /// and are discarded when they are given back; after the last of them the old golden snapshot is dropped.
    ///
    /// # Errors
    ///
    /// - [`Error::Config`]: both golden snapshots and the sandboxes don't fit into the budget of memory at the same
    ///   time, or `golden` was loaded for a VMM that another program runs.
    /// - [`Error::PoolClosed`]: the pool was drained or shut down, or has halted.
    pub async fn replace_golden(&self, golden: Arc<LoadedGolden>) -> Result<(), Error> {
        check_shareable(&golden)?;
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Replace { golden, reply })?;
        answer.await.unwrap_or(Err(Error::PoolClosed))
    }

    /// Closes the pool and waits for its callers: hands out no sandbox any more, and waits until every sandbox was
    /// given back and every VMM has ended. Callers that wait in [`acquire`](Self::acquire) get [`Error::PoolClosed`].
    /// If the returned future is dropped, the drain goes on.
    pub async fn drain(&self) {
        let (reply, answer) = oneshot::channel();
        if self.ask(Request::Drain(reply)).is_ok() {
            // It fails if the pool's runtime is gone, and every VMM with it.
            let _ = answer.await;
        }
    }

    /// Closes the pool without waiting for its callers: hands out no sandbox any more, shuts down all sandboxes, also
    /// those that callers have, and waits until every VMM has ended. It is idempotent. If the returned future is
    /// dropped, the shutdown goes on.
    pub async fn shutdown(&self) {
        let (reply, answer) = oneshot::channel();
        if self.ask(Request::Shutdown(reply)).is_ok() {
            // It fails if the pool's runtime is gone, and every VMM with it.
            let _ = answer.await;
        }
    }

    /// The pool's present status. Returns at once.
    pub fn status(&self) -> PoolStatus {
        self.shared.status.borrow().clone()
    }

    /// Waits until `condition` is true of the pool's status. Returns at once if it is true already. Also returns when
    /// the pool's runtime is gone, whatever the status is.
    ///
    /// ```no_run
    /// # async fn example(pool: chv_sandbox::sandbox::Pool) {
    /// // Both sandboxes that are configured to wait for callers do.
    /// pool.wait_until(|status| status.idle == 2).await;
    /// # }
    /// ```
    pub async fn wait_until(&self, condition: impl Fn(&PoolStatus) -> bool) {
        let mut status = self.shared.status.clone();
        // It fails if the pool's task is gone.
        let _ = status.wait_for(condition).await;
    }

    /// A receiver of the pool's events from now on: sandboxes that are acquired and released, and spares. It doesn't
    /// get the events of a single sandbox; for those use the sandbox's own [`subscribe`](super::Sandbox::subscribe).
    /// The limits of a receiver are the same.
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

/// A sandbox that a [`Pool`] has handed out.
///
/// It dereferences to a [`ChvSandbox`], so the methods of [`Sandbox`](super::Sandbox) can be called on it, and
/// `&*pooled` is a `&dyn Sandbox`. Give it back with [`recycle`](Self::recycle), which waits for the reset, or drop it.
/// In both cases the pool resets it for the next caller.
pub struct PooledSandbox {
    /// `None` once the sandbox was given back.
    member: Option<Member>,
    /// A weak sender, so that a sandbox that a caller has doesn't keep the pool alive.
    requests: mpsc::WeakUnboundedSender<Request>,
}

impl PooledSandbox {
    fn new(member: Member, requests: mpsc::WeakUnboundedSender<Request>) -> Self {
        PooledSandbox {
            member: Some(member),
            requests,
        }
    }

    /// The sandbox's number in its pool, from 1. The pool's events have the same number.
    pub fn number(&self) -> u64 {
        self.member().number
    }

    /// Gives the sandbox back to the pool and waits for its reset. If the returned future is dropped, the reset goes
    /// on.
    ///
    /// # Errors
    ///
    /// - Those of [`reset`](super::Sandbox::reset). The pool discards the sandbox.
    /// - [`Error::PoolClosed`]: the pool discarded the sandbox without a reset, because the pool closes, has halted, or
    ///   has another golden snapshot by now.
    pub async fn recycle(mut self) -> Result<Reset, Error> {
        let (reply, answer) = oneshot::channel();
        self.give_back(Some(reply));
        answer.await.unwrap_or(Err(Error::PoolClosed))
    }

    fn member(&self) -> &Member {
        self.member
            .as_ref()
            .expect("a sandbox that was given back is not used")
    }

    fn give_back(&mut self, reply: Option<oneshot::Sender<Result<Reset, Error>>>) {
        // If the pool is gone, the sandbox is dropped here, which kills its VMM.
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

/// Refuses a golden snapshot that was loaded for a VMM of another program: the pool's VMMs can't share its memory.
fn check_shareable(golden: &LoadedGolden) -> Result<(), Error> {
    match golden.memory().basis {
        crate::golden::MemoryBasis::Unproved => Err(config::invalid(
            "golden",
            "was loaded for a VMM that another program runs",
        )),
        _ => Ok(()),
    }
}
