//! Sandboxes and pools for programs without an async runtime.
//!
//! The same driver, the same types, the same errors as in [`sandbox`]: each call here waits for the one of the
//! same name there, on a runtime with one thread that all sandboxes and pools of the process share. A call may be made from
//! any thread, [`shutdown`](Sandbox::shutdown) too while another call waits.
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
//! Every call that waits panics inside an async runtime: use [`sandbox`] there.

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

/// The runtime of this process's blocking sandboxes, from the first of them on.
fn runtime() -> Result<&'static Runtime, Error> {
    static SHARED: LazyLock<Result<Runtime, Arc<io::Error>>> = LazyLock::new(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name("chv-sandbox");
        builder.enable_all().build().map_err(Arc::new)
    });
    let shared = SHARED.as_ref();
    shared.map_err(|error| Error::NoThread(Arc::clone(error)))
}

/// A sandbox whose calls block: see [`sandbox::Sandbox`] for what each does and when it fails. A clone is another handle of
/// the same sandbox.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<dyn sandbox::Sandbox>,
    runtime: &'static Runtime,
}

impl Sandbox {
    /// A sandbox as configured, on VMMs that it spawns itself. Nothing is started yet.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], and [`Error::NoThread`] when the runtime's thread can't be started.
    pub fn new(config: SandboxConfig) -> Result<Sandbox, Error> {
        let sandbox = ChvSandbox::new(config).map_err(|error| Error::Config(Arc::new(error)))?;
        Sandbox::of(Arc::new(sandbox))
    }

    /// The blocking face of any sandbox, such as a [`StubSandbox`](sandbox::StubSandbox).
    ///
    /// # Errors
    ///
    /// [`Error::NoThread`] when the runtime's thread can't be started.
    pub fn of(inner: Arc<dyn sandbox::Sandbox>) -> Result<Sandbox, Error> {
        Ok(Sandbox {
            inner,
            runtime: runtime()?,
        })
    }

    /// As [`sandbox::Sandbox::boot`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn boot(&self) -> Result<(), Error> {
        self.runtime.block_on(self.inner.boot())
    }

    /// As [`sandbox::Sandbox::execute_tool`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error> {
        self.runtime.block_on(self.inner.execute_tool(invocation))
    }

    /// As [`sandbox::Sandbox::start`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn start(&self, invocation: ToolInvocation) -> Result<RunningTool, Error> {
        let running = self.runtime.block_on(self.inner.start(invocation))?;
        Ok(RunningTool::new(running, self.runtime))
    }

    /// As [`sandbox::Sandbox::run_once`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn run_once(&self, invocation: ToolInvocation) -> Result<RunOnce, Error> {
        self.runtime.block_on(self.inner.run_once(invocation))
    }

    /// As [`sandbox::Sandbox::push`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn push(
        &self,
        local: impl AsRef<Path>,
        path: &str,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        let pushed = self.inner.push(local.as_ref(), path, options);
        self.runtime.block_on(pushed)
    }

    /// As [`sandbox::Sandbox::pull`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn pull(
        &self,
        path: &str,
        local: impl AsRef<Path>,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        let pulled = self.inner.pull(path, local.as_ref(), options);
        self.runtime.block_on(pulled)
    }

    /// As [`sandbox::Sandbox::reset`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn reset(&self) -> Result<Reset, Error> {
        self.runtime.block_on(self.inner.reset())
    }

    /// As [`sandbox::Sandbox::shutdown`].
    pub fn shutdown(&self) {
        self.runtime.block_on(self.inner.shutdown());
    }

    /// Where the sandbox stands. Doesn't block.
    pub fn state(&self) -> SandboxState {
        self.inner.state()
    }

    /// What happens from now on, for a thread that waits for it.
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

/// A pool whose calls block: see [`sandbox::Pool`]. A clone is another handle of the same pool.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: sandbox::Pool,
    runtime: &'static Runtime,
}

impl Pool {
    /// As [`sandbox::Pool::open`].
    ///
    /// # Errors
    ///
    /// The same, and [`Error::NoThread`] when the runtime's thread can't be started.
    pub fn open(config: PoolConfig) -> Result<Pool, Error> {
        let runtime = runtime()?;
        let inner = runtime.block_on(sandbox::Pool::open(config))?;
        Ok(Pool { inner, runtime })
    }

    /// As [`sandbox::Pool::acquire`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn acquire(&self, deadline: Duration) -> Result<PooledSandbox, Error> {
        let inner = self.runtime.block_on(self.inner.acquire(deadline))?;
        Ok(PooledSandbox {
            inner,
            runtime: self.runtime,
        })
    }

    /// As [`sandbox::Pool::replace_golden`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn replace_golden(&self, golden: Arc<LoadedGolden>) -> Result<(), Error> {
        self.runtime.block_on(self.inner.replace_golden(golden))
    }

    /// As [`sandbox::Pool::wait_until`].
    pub fn wait_until(&self, condition: impl Fn(&PoolStatus) -> bool) {
        self.runtime.block_on(self.inner.wait_until(condition));
    }

    /// As [`sandbox::Pool::drain`].
    pub fn drain(&self) {
        self.runtime.block_on(self.inner.drain());
    }

    /// As [`sandbox::Pool::shutdown`].
    pub fn shutdown(&self) {
        self.runtime.block_on(self.inner.shutdown());
    }

    /// Where the pool stands. Doesn't block.
    pub fn status(&self) -> PoolStatus {
        self.inner.status()
    }

    /// What happens in the pool from now on.
    pub fn subscribe(&self) -> Events {
        Events {
            receiver: self.inner.subscribe(),
            runtime: self.runtime,
        }
    }
}

/// A sandbox that a pool handed out: see [`sandbox::PooledSandbox`].
#[derive(Debug)]
pub struct PooledSandbox {
    inner: sandbox::PooledSandbox,
    runtime: &'static Runtime,
}

impl PooledSandbox {
    /// The sandbox's number in its pool.
    pub fn number(&self) -> u64 {
        self.inner.number()
    }

    /// As [`sandbox::Sandbox::execute_tool`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn execute_tool(&self, invocation: ToolInvocation) -> Result<ToolExecution, Error> {
        let executed = sandbox::Sandbox::execute_tool(&*self.inner, invocation);
        self.runtime.block_on(executed)
    }

    /// As [`sandbox::Sandbox::start`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn start(&self, invocation: ToolInvocation) -> Result<RunningTool, Error> {
        let started = sandbox::Sandbox::start(&*self.inner, invocation);
        let running = self.runtime.block_on(started)?;
        Ok(RunningTool::new(running, self.runtime))
    }

    /// As [`sandbox::Sandbox::run_once`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn run_once(&self, invocation: ToolInvocation) -> Result<RunOnce, Error> {
        let ran = sandbox::Sandbox::run_once(&*self.inner, invocation);
        self.runtime.block_on(ran)
    }

    /// As [`sandbox::Sandbox::push`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn push(
        &self,
        local: impl AsRef<Path>,
        path: &str,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        let pushed = sandbox::Sandbox::push(&*self.inner, local.as_ref(), path, options);
        self.runtime.block_on(pushed)
    }

    /// As [`sandbox::Sandbox::pull`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn pull(
        &self,
        path: &str,
        local: impl AsRef<Path>,
        options: &TransferOptions,
    ) -> Result<TransferReport, Error> {
        let pulled = sandbox::Sandbox::pull(&*self.inner, path, local.as_ref(), options);
        self.runtime.block_on(pulled)
    }

    /// Where the sandbox stands. Doesn't block.
    pub fn state(&self) -> SandboxState {
        sandbox::Sandbox::state(&*self.inner)
    }

    /// As [`sandbox::Sandbox::reset`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn reset(&self) -> Result<Reset, Error> {
        let reset = sandbox::Sandbox::reset(&*self.inner);
        self.runtime.block_on(reset)
    }

    /// As [`sandbox::PooledSandbox::recycle`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn recycle(self) -> Result<Reset, Error> {
        self.runtime.block_on(self.inner.recycle())
    }
}

/// Events as they come. It ends with its sandbox or pool.
#[derive(Debug)]
pub struct Events {
    receiver: Receiver<Event>,
    runtime: &'static Runtime,
}

impl Iterator for Events {
    type Item = Event;

    /// Blocks until there is one.
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
