//! [`Sandbox`] and [`Pool`] for programs without an async runtime.
//!
//! Each method calls the async method of the same name in [`sandbox`] and blocks until it returns. Types and errors are
//! those of [`sandbox`]. The async work runs on a tokio runtime with one thread, which all blocking sandboxes and pools
//! of the process share. Methods may be called from any thread, and several at the same time: for example, one thread
//! may call [`shutdown`](Sandbox::shutdown) while another one waits in `execute_tool`.
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use chv_sandbox::blocking::Sandbox;
//! use chv_sandbox::sandbox::{SandboxConfig, ToolInvocation};
//! use serde_json::json;
//!
//! let sandbox = Sandbox::new(SandboxConfig::golden("/var/lib/agent/golden"))?;
//! sandbox.boot()?;
//! let done = sandbox.run_once(ToolInvocation::new("echo", json!({ "message": "hello" })))?;
//! println!("{}", done.execution.stdout.text());
//! sandbox.shutdown();
//! # Ok(())
//! # }
//! ```
//!
//! # Panics
//!
//! Every method that blocks panics if it is called inside an async runtime. Use [`sandbox`] there.

mod running;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::broadcast::{Receiver, RecvError};
use crate::golden::LoadedGolden;
use crate::sandbox::{
    self, ChvSandbox, Error, Event, PoolConfig, PoolStatus, Reset, RunOnce, SandboxConfig,
    SandboxState, ToolExecution, ToolInvocation, TransferOptions, TransferReport,
};

pub use running::{RunningTool, ToolStdin};

/// The runtime that all blocking sandboxes and pools of this process share. The first call creates it.
fn runtime() -> Result<&'static Runtime, Error> {
    static SHARED: LazyLock<Result<Runtime, Arc<io::Error>>> = LazyLock::new(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name("chv-sandbox");
        builder.enable_all().build().map_err(Arc::new)
    });
    let shared = SHARED.as_ref();
    shared.map_err(|error| Error::NoThread(Arc::clone(error)))
}

/// A sandbox whose methods block: see [`sandbox::Sandbox`] for what each does and how it fails. A clone is another
/// handle of the same sandbox.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<dyn sandbox::Sandbox>,
    runtime: &'static Runtime,
}

impl Sandbox {
    /// Creates a sandbox that starts its own VMMs, as [`ChvSandbox::new`] does. No VMM is started before
    /// [`boot`](Self::boot).
    ///
    /// # Errors
    ///
    /// - [`Error::Config`]: a value of `config` is not allowed.
    /// - [`Error::NoThread`]: the thread of the shared runtime can't be started.
    pub fn new(config: SandboxConfig) -> Result<Sandbox, Error> {
        let sandbox = ChvSandbox::new(config).map_err(|error| Error::Config(Arc::new(error)))?;
        Sandbox::of(Arc::new(sandbox))
    }

    /// Wraps any async sandbox, such as a [`StubSandbox`](sandbox::StubSandbox) or a [`ChvSandbox`] on other VMMs.
    ///
    /// # Errors
    ///
    /// [`Error::NoThread`]: the thread of the shared runtime can't be started.
    pub fn of(inner: Arc<dyn sandbox::Sandbox>) -> Result<Sandbox, Error> {
        Ok(Sandbox {
            inner,
            runtime: runtime()?,
        })
    }

    /// Starts the VM, as [`sandbox::Sandbox::boot`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::boot`].
    pub fn boot(&self) -> Result<(), Error> {
        self.runtime.block_on(self.inner.boot())
    }

    /// Runs one tool and returns its output, as [`sandbox::Sandbox::execute_tool`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::execute_tool`].
    pub fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error> {
        self.runtime.block_on(self.inner.execute_tool(invocation))
    }

    /// Starts one tool with streams, as [`sandbox::Sandbox::start`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::start`].
    pub fn start(&self, invocation: ToolInvocation) -> Result<RunningTool, Error> {
        let running = self.runtime.block_on(self.inner.start(invocation))?;
        Ok(RunningTool::new(running, self.runtime))
    }

    /// Runs one tool, then resets the sandbox, as [`sandbox::Sandbox::run_once`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::run_once`].
    pub fn run_once(&self, invocation: ToolInvocation) -> Result<RunOnce, Error> {
        self.runtime.block_on(self.inner.run_once(invocation))
    }

    /// Copies files into the guest, as [`sandbox::Sandbox::push`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::push`].
    pub fn push(
        &self,
        local: impl AsRef<Path>,
        path: &str,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        let pushed = self.inner.push(local.as_ref(), path, options);
        self.runtime.block_on(pushed)
    }

    /// Copies files out of the guest, as [`sandbox::Sandbox::pull`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::pull`].
    pub fn pull(
        &self,
        path: &str,
        local: impl AsRef<Path>,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        let pulled = self.inner.pull(path, local.as_ref(), options);
        self.runtime.block_on(pulled)
    }

    /// Returns the sandbox to its golden snapshot and verifies the result, as [`sandbox::Sandbox::reset`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::reset`].
    pub fn reset(&self) -> Result<Reset, Error> {
        self.runtime.block_on(self.inner.reset())
    }

    /// Stops the VM and releases everything, as [`sandbox::Sandbox::shutdown`] does.
    pub fn shutdown(&self) {
        self.runtime.block_on(self.inner.shutdown());
    }

    /// The present state. Doesn't block.
    pub fn state(&self) -> SandboxState {
        self.inner.state()
    }

    /// An iterator of all events from now on. Each step of it blocks until there is an event. Subscribing doesn't
    /// block.
    pub fn subscribe(&self) -> Events {
        Events {
            receiver: self.inner.subscribe(),
            runtime: self.runtime,
        }
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// A pool whose methods block: see [`sandbox::Pool`] for what each does and how it fails. A clone is another handle of
/// the same pool.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: sandbox::Pool,
    runtime: &'static Runtime,
}

impl Pool {
    /// Opens the golden snapshot and begins to boot sandboxes, as [`sandbox::Pool::open`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Pool::open`], and [`Error::NoThread`] if the thread of the shared runtime can't be started.
    pub fn open(config: PoolConfig) -> Result<Pool, Error> {
        let runtime = runtime()?;
        let inner = runtime.block_on(sandbox::Pool::open(config))?;
        Ok(Pool { inner, runtime })
    }

    /// Waits for a clean sandbox, as [`sandbox::Pool::acquire`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Pool::acquire`].
    pub fn acquire(&self, deadline: Duration) -> Result<PooledSandbox, Error> {
        let inner = self.runtime.block_on(self.inner.acquire(deadline))?;
        Ok(PooledSandbox {
            inner,
            runtime: self.runtime,
        })
    }

    /// Replaces the pool's golden snapshot, as [`sandbox::Pool::replace_golden`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Pool::replace_golden`].
    pub fn replace_golden(&self, golden: Arc<LoadedGolden>) -> Result<(), Error> {
        self.runtime.block_on(self.inner.replace_golden(golden))
    }

    /// Waits until `condition` is true of the pool's status, as [`sandbox::Pool::wait_until`] does.
    pub fn wait_until(&self, condition: impl Fn(&PoolStatus) -> bool) {
        self.runtime.block_on(self.inner.wait_until(condition));
    }

    /// Closes the pool and waits for its callers, as [`sandbox::Pool::drain`] does.
    pub fn drain(&self) {
        self.runtime.block_on(self.inner.drain());
    }

    /// Closes the pool without waiting for its callers, as [`sandbox::Pool::shutdown`] does.
    pub fn shutdown(&self) {
        self.runtime.block_on(self.inner.shutdown());
    }

    /// The pool's present status. Doesn't block.
    pub fn status(&self) -> PoolStatus {
        self.inner.status()
    }

    /// An iterator of the pool's events from now on: see [`sandbox::Pool::subscribe`]. Each step of it blocks until
    /// there is an event. Subscribing doesn't block.
    pub fn subscribe(&self) -> Events {
        Events {
            receiver: self.inner.subscribe(),
            runtime: self.runtime,
        }
    }
}

/// A sandbox that a [`Pool`] has handed out, with the blocking methods of a [`Sandbox`]: see
/// [`sandbox::PooledSandbox`]. Give it back with [`recycle`](Self::recycle), or drop it.
#[derive(Debug)]
pub struct PooledSandbox {
    inner: sandbox::PooledSandbox,
    runtime: &'static Runtime,
}

impl PooledSandbox {
    /// The sandbox's number in its pool, from 1. The pool's events have the same number.
    pub fn number(&self) -> u64 {
        self.inner.number()
    }

    /// Runs one tool and returns its output, as [`sandbox::Sandbox::execute_tool`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::execute_tool`].
    pub fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error> {
        let executed = sandbox::Sandbox::execute_tool(&*self.inner, invocation);
        self.runtime.block_on(executed)
    }

    /// Starts one tool with streams, as [`sandbox::Sandbox::start`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::start`].
    pub fn start(&self, invocation: ToolInvocation) -> Result<RunningTool, Error> {
        let started = sandbox::Sandbox::start(&*self.inner, invocation);
        let running = self.runtime.block_on(started)?;
        Ok(RunningTool::new(running, self.runtime))
    }

    /// Runs one tool, then resets the sandbox, as [`sandbox::Sandbox::run_once`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::run_once`].
    pub fn run_once(&self, invocation: ToolInvocation) -> Result<RunOnce, Error> {
        let ran = sandbox::Sandbox::run_once(&*self.inner, invocation);
        self.runtime.block_on(ran)
    }

    /// Copies files into the guest, as [`sandbox::Sandbox::push`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::push`].
    pub fn push(
        &self,
        local: impl AsRef<Path>,
        path: &str,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        let pushed = sandbox::Sandbox::push(&*self.inner, local.as_ref(), path, options);
        self.runtime.block_on(pushed)
    }

    /// Copies files out of the guest, as [`sandbox::Sandbox::pull`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::pull`].
    pub fn pull(
        &self,
        path: &str,
        local: impl AsRef<Path>,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        let pulled = sandbox::Sandbox::pull(&*self.inner, path, local.as_ref(), options);
        self.runtime.block_on(pulled)
    }

    /// The present state. Doesn't block.
    pub fn state(&self) -> SandboxState {
        sandbox::Sandbox::state(&*self.inner)
    }

    /// Returns the sandbox to its golden snapshot and verifies the result, as [`sandbox::Sandbox::reset`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::Sandbox::reset`].
    pub fn reset(&self) -> Result<Reset, Error> {
        let reset = sandbox::Sandbox::reset(&*self.inner);
        self.runtime.block_on(reset)
    }

    /// Gives the sandbox back to the pool and waits for its reset, as [`sandbox::PooledSandbox::recycle`] does.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::PooledSandbox::recycle`].
    pub fn recycle(self) -> Result<Reset, Error> {
        self.runtime.block_on(self.inner.recycle())
    }
}

/// An iterator of the events of a sandbox or a pool. It ends when the sandbox or the pool is dropped. If it falls
/// behind, it yields [`Event::Lost`] with the number of events that it lost.
#[derive(Debug)]
pub struct Events {
    receiver: Receiver<Event>,
    runtime: &'static Runtime,
}

impl Iterator for Events {
    type Item = Event;

    /// Blocks until there is an event.
    fn next(&mut self) -> Option<Event> {
        match self.runtime.block_on(self.receiver.recv()) {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(count)) => Some(Event::Lost {
                source: "sandbox",
                count,
            }),
            Err(RecvError::Closed) => None,
        }
    }
}
