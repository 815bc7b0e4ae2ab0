//! The VMM process: started, watched, stopped, and cleared away when an earlier agent left it behind.
//!
//! ```text
//!              spawn                 ping answered
//!   (nothing) ───────▶ starting ─────────────────────▶ running ──┐ shutdown: vmm.shutdown,
//!                         │                              │       │ then SIGTERM, then SIGKILL
//!                         │ died, or silent too long     │ died  │
//!                         ▼                              ▼       ▼
//!                       Error (log tail)               ended (exit, log tail) ──▶ run directory removed
//! ```
//!
//! One VMM process serves one [`Vmm`]. It lives in a private run directory (mode 0700) below the run root:
//!
//! | file | what |
//! |---|---|
//! | `lock` | locked as long as the agent that made the directory lives |
//! | `vmm.json`, `vmm.stat` | who the process is: what a later start needs to know it again |
//! | `rw` | all that the VMM may write: its sockets and the disks that are its own |
//! | `ro` | what it may only read, beside the files that it was [granted](Grants) |
//! | `vmm.log` | what the VMM wrote to its standard output and error: the first 256 KiB and the last, at most 1 MiB |
//! | `console.log` | what the VM wrote to its [console](Vmm::console), bounded in the same way |
//!
//! The api-socket is bound by us and handed over open. It has lost its name before the VMM starts, and so has
//! [`VSOCK_SOCKET`], in `rw`, once a VM is there: this process reaches both by descriptors
//! ([`SocketAddress`](crate::socket::SocketAddress)), and no other process reaches them at all.
//!
//! # The boundary
//!
//! A VMM that its guest has taken over may do whatever its process may. So it is started with as little as it needs:
//! [`Layer`] lists the layers, [`Confinement`] chooses among them, and [`Vmm::layers`] says which are in force.
//!
//! # What a VMM can make this process hold and do
//!
//! Logs, console and event monitor are read by one thread of their own, a chunk of 64 KiB of each in turn. The log is read
//! at 4 MiB a second after a first 4 MiB, the console at 2 MiB after 1 MiB, events at 256 KiB after 1 MiB; a VMM or a guest
//! that writes faster waits. Of a log 1 MiB is kept in its file, and nothing in memory. An event has 16 KiB at most, and
//! events for slow subscribers 1 MiB together. When a VMM has ended, its end is told after what its pipes still held was
//! read, so its last words are complete. Text of a VMM or a guest in errors and events is
//! [safe to show](crate::sanitize); the files hold the bytes.
//!
//! # No orphan
//!
//! The VMM asks the kernel for SIGKILL when its parent dies. That is best effort: the kernel drops the request for a
//! binary with file capabilities, unless `no_new_privs` is set. The guarantee is [`reclaim`], which every spawn calls first:
//! it finds the run directories whose agent is gone, kills what is provably still theirs, and removes them.

mod binary;
mod child;
mod config;
mod confinement;
mod error;
mod exit;
mod family;
mod files;
mod kvm;
mod launch;
mod leftovers;
mod living;
mod maps;
mod open_files;
mod output;
mod process;
mod procfs;
mod proof;
mod ready;
mod remove;
mod run_dir;
mod run_root;
mod running;
mod shutdown;
mod spawner;
mod waker;

use std::future::Future;
use std::path::Path;

use tokio::sync::{OnceCell, watch};

use crate::broadcast;
use crate::causes::Causes;
use crate::client::{Client, MonitorEvent};
use crate::limits::TimeLimits;

pub(crate) use binary::find as find_binary;
pub use config::VmmConfig;
pub use confinement::{CgroupConfig, Confinement, Grants, Layer, LayerReport, LayerState};
pub use error::Error;
pub use exit::{Ended, Exit};
pub(crate) use files::beyond_streams;
pub(crate) use kvm::open_kvm;
pub use kvm::{KVM_DEVICE, NoKvm};
pub use launch::available;
pub use leftovers::{Action, LeftAlone, Reclaimed, reclaim};
pub use living::all_ended;
pub use maps::{MappedFile, Mapping};
pub use open_files::OpenFile;
pub(crate) use output::tail_of;
pub use process::Process;
pub use proof::{Executable, Identity, IdentityError};
#[cfg(feature = "compat")]
pub(crate) use remove::remove_tree;
pub use run_dir::VSOCK_SOCKET;
pub(crate) use run_root::examine as examine_run_root;
pub use shutdown::{ShutdownReport, ShutdownStep};

use running::Running;

/// One VMM: its process, the client of its API, and its events.
///
/// Dropping a `Vmm` that was spawned kills its process with SIGKILL and removes its run directory;
/// [`shutdown`](Vmm::shutdown) is the orderly way. Dropping one that was attached leaves the VMM alone.
///
/// A `Vmm` isn't bound to the async runtime that spawned it: the process is watched and reaped by a thread
/// of its own.
#[derive(Debug)]
pub struct Vmm {
    client: Client,
    limits: TimeLimits,
    keeps_socket_names: bool,
    running: Option<Running>,
    /// What the process ran when it was ready; `None` when attached, or when it couldn't be looked at.
    ready_as: Option<Executable>,
    events: broadcast::Receiver<MonitorEvent>,
    shutdown: OnceCell<ShutdownReport>,
}

impl Vmm {
    /// Starts a VMM and returns when it has answered `vmm.ping`.
    ///
    /// Clears first what earlier, dead agents left below the run root (see [`reclaim`]). If the returned future is
    /// dropped, the process is killed and the run directory removed.
    ///
    /// The VMM may open what its run directory has for it, and no other file: for disks, kernels and snapshots elsewhere use
    /// [`spawn_with`](Self::spawn_with), or leave [layers](Confinement) out.
    ///
    /// # Errors
    ///
    /// - [`Error::BinaryNotFound`], [`Error::NotExecutable`], [`Error::Spawn`]: there is no such VMM to start.
    /// - [`Error::RunRoot`], [`Error::PathTooLong`], [`Error::RunDir`]: there is no place for its sockets and log.
    /// - [`Error::DiedAtStart`], [`Error::NotReady`]: it started and never answered. Both carry the end of its log.
    /// - [`Error::Client`]: it answered what no VMM answers.
    pub async fn spawn(config: &VmmConfig) -> Result<Vmm, Error> {
        Vmm::spawn_with(config, Grants::default()).await
    }

    /// The same for a VMM that is given more than its run directory.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Vmm::spawn).
    pub async fn spawn_with(config: &VmmConfig, grants: Grants) -> Result<Vmm, Error> {
        let limits = config.limits.capped();
        let running = spawner::spawn(config, grants).await?;
        let client = Client::new(running.api_socket.clone())?;
        ready::wait(&client, &running, limits.vmm_start).await?;
        tracing::info!(
            pid = running.process().pid(),
            run_dir = %running.run_dir.path().display(),
            "the VMM is ready"
        );
        let ready_as = proof::executable(running.process())
            .inspect_err(
                |error| tracing::warn!(error = %Causes(error), "what the VMM runs can't be told"),
            )
            .ok();
        Ok(Vmm {
            client,
            limits,
            keeps_socket_names: config.keep_socket_names,
            events: running.events.resubscribe(),
            ready_as,
            running: Some(running),
            shutdown: OnceCell::new(),
        })
    }

    /// Takes a VMM that another program started, or a stand-in that plays one, by its api-socket.
    ///
    /// There is no process to watch: [`process`](Vmm::process) and [`run_dir`](Vmm::run_dir) are `None`,
    /// [`ended`](Vmm::ended) never resolves, there are no events, and nothing is killed on drop.
    ///
    /// # Errors
    ///
    /// [`Error::PathTooLong`] when the path can't be a socket's, and [`Error::Client`] when `vmm.ping` isn't answered.
    pub async fn attach(api_socket: &Path) -> Result<Vmm, Error> {
        let client = Client::new(api_socket)?;
        ready::ping(&client).await.map_err(|source| Error::Client {
            socket: api_socket.to_owned(),
            source: Box::new(source),
        })?;
        let (_, events) = broadcast::channel(output::BACKLOG);
        Ok(Vmm {
            client,
            limits: TimeLimits::default(),
            keeps_socket_names: true,
            running: None,
            ready_as: None,
            events,
            shutdown: OnceCell::new(),
        })
    }

    /// The client of this VMM's API.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The private directory of this VMM (mode 0700); `None` when attached. It is gone after
    /// [`shutdown`](Vmm::shutdown).
    pub fn run_dir(&self) -> Option<&Path> {
        self.running.as_ref().map(|running| running.run_dir.path())
    }

    /// The folder below it in which the VMM may make files and sockets; `None` when attached. Nothing in it is to be
    /// believed: the VMM may write anything there.
    pub fn writable_dir(&self) -> Option<&Path> {
        let running = self.running.as_ref()?;
        Some(&running.run_dir.folders().writable)
    }

    /// The folder below it that the VMM may only read; `None` when attached.
    pub fn readable_dir(&self) -> Option<&Path> {
        let running = self.running.as_ref()?;
        Some(&running.run_dir.folders().readable)
    }

    /// What became of each layer of the VMM's boundary; empty when attached, since nothing is known of that one's.
    pub fn layers(&self) -> &[LayerReport] {
        match &self.running {
            Some(running) => &running.layers,
            None => &[],
        }
    }

    /// Whether the names of this VMM's sockets are taken away.
    pub(crate) fn hides_sockets(&self) -> bool {
        !self.keeps_socket_names
    }

    /// The process; `None` when attached.
    pub fn process(&self) -> Option<&Process> {
        self.running.as_ref().map(Running::process)
    }

    /// Proves that the process which answers on the api-socket is the one that was spawned; `None` when attached, since there
    /// is no process to look into. Costs some reads below `/proc`, and no call. What is proved, and what isn't,
    /// is the comment of `src/vmm/proof.rs`.
    ///
    /// # Errors
    ///
    /// One variant of [`IdentityError`] for each fact that isn't so, and [`IdentityError::Unknown`] when the process has
    /// ended or can't be looked at.
    pub fn prove_identity(&self) -> Result<Option<Identity>, IdentityError> {
        let Some(running) = &self.running else {
            return Ok(None);
        };
        let pid = running.process().pid();
        let ready_as = self.ready_as.as_ref();
        let ready_as = ready_as.ok_or(IdentityError::NotSeenWhenReady { pid })?;
        proof::prove(running.process(), ready_as).map(Some)
    }

    /// The VMM's events from now on.
    ///
    /// They are hints, never state: the VMM drops or tears them when they aren't read fast enough, and there is none
    /// for a failure. A receiver that lags by more than 256 events, or by 1 MiB, loses the oldest. The stream closes when the process has died; it is closed
    /// from the start when attached.
    pub fn events(&self) -> broadcast::Receiver<MonitorEvent> {
        self.events.resubscribe()
    }

    /// Resolves when the process has died, for any number of waiters; never when attached.
    ///
    /// The future holds nothing of the `Vmm` and may outlive it.
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + 'static {
        let ended = self.running.as_ref().map(|running| running.ended.clone());
        async move {
            match ended {
                Some(ended) => exit::wait(ended).await,
                None => std::future::pending().await,
            }
        }
    }

    /// The last 16 KiB of what the VMM wrote to its standard output and error, as text that is
    /// [safe to show](crate::sanitize::lines); empty when attached.
    pub fn log_tail(&self) -> String {
        self.running
            .as_ref()
            .map(|running| running.log.tail())
            .unwrap_or_default()
    }

    /// What to give as `file` to a console or serial port of mode `File`, so that what the guest writes is kept in
    /// `console.log` and can fill no disk; `None` when attached.
    ///
    /// It is the VMM's own name for a pipe that it has inherited, and means nothing to another process. The pipe is
    /// emptied at 2 MiB a second, after a first MiB at any speed: a guest that writes faster waits, as it would for any
    /// console.
    pub fn console(&self) -> Option<&Path> {
        let console = self.running.as_ref().map(|running| &running.console);
        console.map(|console| console.path.as_path())
    }

    /// The last 16 KiB of what came to [`console`](Vmm::console), over all VMs that this VMM has had, as text that is
    /// [safe to show](crate::sanitize::lines); empty when attached.
    pub fn console_tail(&self) -> String {
        self.running
            .as_ref()
            .map(|running| running.console.log.tail())
            .unwrap_or_default()
    }

    /// Kills the process and its forks with SIGKILL, without a word to it, and waits until it is gone. Does nothing to one that
    /// was attached. [`shutdown`](Vmm::shutdown) has nothing left to do then but to remove the run directory.
    ///
    /// # Errors
    ///
    /// [`Error::NotKilled`] when it hasn't ended within [`TimeLimits::vmm_kill`].
    pub async fn kill(&self) -> Result<(), Error> {
        let Some(running) = &self.running else {
            return Ok(());
        };
        let killed = running.family.kill();
        match tokio::time::timeout(self.limits.vmm_kill, self.ended()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::NotKilled {
                pid: running.process().pid(),
                limit: self.limits.vmm_kill,
                source: killed.err(),
            }),
        }
    }

    /// Stops the VMM: `vmm.shutdown`, then SIGTERM, then SIGKILL, each with its limit from [`TimeLimits`]; then removes
    /// the run directory.
    ///
    /// Legal at any time and safe to call again or at once from several tasks: all get the same report. It uses a
    /// connection of its own, so it works while another call on [`client`](Vmm::client) waits for its answer.
    /// It never fails: what it couldn't do is in the report.
    pub async fn shutdown(&self) -> ShutdownReport {
        self.shutdown
            .get_or_init(|| {
                shutdown::run(self.client.address(), self.running.as_ref(), &self.limits)
            })
            .await
            .clone()
    }
}

/// The state of the process as it is known without asking anyone.
type EndedReceiver = watch::Receiver<Option<Ended>>;
