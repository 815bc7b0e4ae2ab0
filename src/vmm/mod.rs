//! [`Vmm`]: starts, watches and stops a VMM process. [`reclaim`] kills the VMMs that an earlier agent has left.
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
//! The *agent* is the process that uses this crate. One VMM process serves one [`Vmm`]. It lives in a private run
//! directory (mode 0700) below the run root:
//!
//! | file | content |
//! |---|---|
//! | `lock` | a file that is locked while the agent that made the directory is alive |
//! | `vmm.json`, `vmm.stat` | the identity of the VMM's process, by which a later start recognises it |
//! | `rw` | the folder in which the VMM may write: its sockets and its own disks |
//! | `ro` | the folder that the VMM may only read, in addition to the files that it was [granted](Grants) |
//! | `vmm.log` | the VMM's standard output and error: the first 256 KiB and the last, at most 1 MiB |
//! | `console.log` | the VM's [console](Vmm::console), bounded in the same way |
//!
//! This process binds the api-socket and hands it over open. Its path is removed before the VMM starts, and the path of
//! [`VSOCK_SOCKET`], in `rw`, as soon as a VM exists. This process connects to both by descriptors
//! ([`SocketAddress`](crate::socket::SocketAddress)), and no other process can connect to them.
//!
//! # Confinement
//!
//! If a guest takes its VMM over, it can do everything that the VMM's process may do. So the VMM is started with as few
//! rights as it needs: [`Layer`] lists the layers, [`Confinement`] chooses among them, and [`Vmm::layers`] tells which
//! are in force.
//!
//! # Limits on a VMM's output
//!
//! A separate thread reads the log, the console and the event monitor, at most 64 KiB of each in turn. It reads the log
//! at 4 MiB a second after a first 4 MiB, the console at 2 MiB a second after 1 MiB, and events at 256 KiB a second
//! after 1 MiB. A VMM or a guest that writes faster has to wait. A log file keeps at most 1 MiB, and no log is kept in
//! memory. An event has at most 16 KiB, and the events that wait for slow subscribers have at most 1 MiB together. The
//! end of a VMM is published after its pipes were read to their end, so its log is complete. Text of a VMM or a guest
//! in errors and events is [safe to show](crate::sanitize); the log files have the original bytes.
//!
//! # Who ends a VMM
//!
//! - [`Vmm::shutdown`] asks the VMM to end (`vmm.shutdown`), then sends SIGTERM, then SIGKILL, with a limit for each
//!   step.
//! - A [`Vmm`] that is dropped is killed at once, with every process that it has forked.
//! - The kernel kills the VMM when the agent dies.
//! - [`reclaim`] kills what an earlier agent has left.
//!
//! # No orphans
//!
//! The kernel sends the VMM SIGKILL when its parent dies. This is best effort: the kernel drops the request for a
//! binary with file capabilities, unless `no_new_privs` is set. The guarantee is [`reclaim`], which every spawn calls
//! first. It finds the run directories whose agent is dead, kills the processes that are proved to belong to them, and
//! removes them.

mod binary;
mod child;
mod config;
mod confinement;
mod descriptors;
mod error;
mod exit;
mod identity;
mod kvm;
mod launch;
mod leftovers;
mod maps;
mod open_files;
mod output;
mod process;
mod process_tree;
mod procfs;
mod ready;
mod remove;
mod run_dir;
mod run_root;
mod shutdown;
mod spawned;
mod spawner;
mod vmm_count;
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
pub(crate) use descriptors::beyond_streams;
pub use error::Error;
pub use exit::{Ended, Exit};
pub use identity::{Executable, Identity, IdentityError};
pub(crate) use kvm::KVM_DEVICE;
pub use kvm::NoKvm;
pub(crate) use kvm::open_kvm;
pub use launch::available;
pub use leftovers::{Action, LeftAlone, Reclaimed, reclaim};
pub use maps::{MappedFile, Mapping};
pub use open_files::OpenFile;
pub(crate) use output::tail_of;
pub use process::Process;
#[cfg(feature = "compat")]
pub(crate) use remove::remove_tree;
pub use run_dir::VSOCK_SOCKET;
pub(crate) use run_root::examine as examine_run_root;
pub use shutdown::{ShutdownReport, ShutdownStep};
pub use vmm_count::all_ended;

use spawned::SpawnedVmm;

/// One VMM: its process, the client of its API, and its events.
///
/// Dropping a spawned `Vmm` kills its process with SIGKILL and removes its run directory; [`shutdown`](Vmm::shutdown)
/// stops it in an orderly way. Dropping an attached `Vmm` does not affect the VMM.
///
/// A `Vmm` isn't bound to the async runtime that spawned it, because a separate thread watches and reaps the process.
#[derive(Debug)]
pub struct Vmm {
    client: Client,
    limits: TimeLimits,
    keeps_socket_names: bool,
    running: Option<SpawnedVmm>,
    /// The executable of the process when it was ready; `None` for an attached VMM, or if it couldn't be read.
    ready_as: Option<Executable>,
    events: broadcast::Receiver<MonitorEvent>,
    shutdown: OnceCell<ShutdownReport>,
}

impl Vmm {
    /// Starts a VMM and returns when it has answered `vmm.ping`.
    ///
    /// First it removes what earlier, dead agents have left below the run root (see [`reclaim`]). If the returned
    /// future is dropped, the process is killed and the run directory removed.
    ///
    /// The VMM may open the files in its run directory and no others. For disks, kernels and snapshots in other places
    /// use [`spawn_with`](Self::spawn_with), or leave [layers](Confinement) out.
    ///
    /// # Errors
    ///
    /// - [`Error::BinaryNotFound`], [`Error::NotExecutable`], [`Error::Spawn`], [`Error::NoSpawner`]: the executable
    ///   can't be started.
    /// - [`Error::RunRoot`], [`Error::PathTooLong`], [`Error::RunDir`]: the run directory can't be made.
    /// - [`Error::LayerMissing`], [`Error::Grant`]: a required layer of the confinement is missing, or it can't be
    ///   prepared.
    /// - [`Error::ProcMasked`]: `/proc` doesn't show the VMM's process.
    /// - [`Error::Forked`]: the executable forked the VMM instead of executing it.
    /// - [`Error::DiedAtStart`], [`Error::NotReady`]: the VMM started but did not answer. Both have the end of its log.
    /// - [`Error::Client`]: the VMM's answer was not one of a VMM.
    pub async fn spawn(config: &VmmConfig) -> Result<Vmm, Error> {
        Vmm::spawn_with(config, Grants::default()).await
    }

    /// Starts a VMM like [`spawn`](Vmm::spawn), and grants it files in addition to its run directory.
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
        let ready_as = identity::executable(running.process())
            .inspect_err(
                |error| tracing::warn!(error = %Causes(error), "cannot read which executable the VMM runs"),
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

    /// Attaches to a VMM that another program started, or to a player of recordings, by its api-socket.
    ///
    /// The process of an attached VMM can't be watched: [`process`](Vmm::process) and [`run_dir`](Vmm::run_dir) are
    /// `None`, [`ended`](Vmm::ended) never resolves, there are no events, and dropping the `Vmm` kills no process.
    ///
    /// # Errors
    ///
    /// - [`Error::PathTooLong`]: the path is too long for a socket.
    /// - [`Error::Client`]: `vmm.ping` isn't answered.
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

    /// The private run directory of this VMM (mode 0700); `None` for an attached VMM. [`shutdown`](Vmm::shutdown)
    /// removes it.
    pub fn run_dir(&self) -> Option<&Path> {
        self.running.as_ref().map(|running| running.run_dir.path())
    }

    /// The folder in the run directory in which the VMM may make files and sockets; `None` for an attached VMM. Don't
    /// trust its content: the VMM may write anything there.
    pub fn writable_dir(&self) -> Option<&Path> {
        let running = self.running.as_ref()?;
        Some(&running.run_dir.folders().writable)
    }

    /// The folder in the run directory that the VMM may only read; `None` for an attached VMM.
    pub fn readable_dir(&self) -> Option<&Path> {
        let running = self.running.as_ref()?;
        Some(&running.run_dir.folders().readable)
    }

    /// The state of each layer of the VMM's confinement; empty for an attached VMM, whose confinement is unknown.
    pub fn layers(&self) -> &[LayerReport] {
        match &self.running {
            Some(running) => &running.layers,
            None => &[],
        }
    }

    /// Whether the paths of this VMM's sockets are removed.
    pub(crate) fn hides_sockets(&self) -> bool {
        !self.keeps_socket_names
    }

    /// The VMM's process; `None` for an attached VMM.
    pub fn process(&self) -> Option<&Process> {
        self.running.as_ref().map(SpawnedVmm::process)
    }

    /// Proves that the process which answers on the api-socket is the one that was spawned. Returns `None` for an
    /// attached VMM, whose process can't be examined. It reads some files below `/proc` and does not call the VMM.
    /// [`Identity`] tells what is proved.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]: one variant for each fact that does not hold, and [`IdentityError::Unknown`] if the process
    /// has ended or can't be examined.
    pub fn prove_identity(&self) -> Result<Option<Identity>, IdentityError> {
        let Some(running) = &self.running else {
            return Ok(None);
        };
        let pid = running.process().pid();
        let ready_as = self.ready_as.as_ref();
        let ready_as = ready_as.ok_or(IdentityError::NotSeenWhenReady { pid })?;
        identity::prove(running.process(), ready_as).map(Some)
    }

    /// Returns a receiver of the VMM's events from now on.
    ///
    /// Events are hints and don't replace a call: the VMM drops or truncates them if they aren't read fast enough, and
    /// it sends none for a failure. A receiver that lags by more than 256 events or 1 MiB loses the oldest ones. The
    /// stream closes when the process has ended. For an attached VMM it is closed from the start.
    pub fn events(&self) -> broadcast::Receiver<MonitorEvent> {
        self.events.resubscribe()
    }

    /// Resolves when the process has ended, for any number of waiters. For an attached VMM it never resolves.
    ///
    /// The future does not borrow the `Vmm` and may outlive it.
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + 'static {
        let ended = self.running.as_ref().map(|running| running.ended.clone());
        async move {
            match ended {
                Some(ended) => exit::wait(ended).await,
                None => std::future::pending().await,
            }
        }
    }

    /// The last 16 KiB of the VMM's standard output and error, as text that is [safe to show](crate::sanitize::lines);
    /// empty for an attached VMM.
    pub fn log_tail(&self) -> String {
        self.running
            .as_ref()
            .map(|running| running.log.tail())
            .unwrap_or_default()
    }

    /// The path to use as `file` of a console or serial port of mode `File`. The guest's output then goes to
    /// `console.log`, whose size is bounded. `None` for an attached VMM.
    ///
    /// The path leads to a pipe that the VMM has inherited, and is valid only in the VMM's process. This process reads
    /// the pipe at 2 MiB a second, after a first MiB at any speed. A guest that writes faster has to wait, as for any
    /// console.
    pub fn console(&self) -> Option<&Path> {
        let console = self.running.as_ref().map(|running| &running.console);
        console.map(|console| console.path.as_path())
    }

    /// The last 16 KiB of the output to [`console`](Vmm::console), of all VMs that this VMM has had, as text that is
    /// [safe to show](crate::sanitize::lines); empty for an attached VMM.
    pub fn console_tail(&self) -> String {
        self.running
            .as_ref()
            .map(|running| running.console.log.tail())
            .unwrap_or_default()
    }

    /// Kills the process and its forks with SIGKILL, without a call of its API, and waits until it has ended. Does
    /// nothing to an attached VMM. After it [`shutdown`](Vmm::shutdown) only removes the run directory.
    ///
    /// # Errors
    ///
    /// [`Error::NotKilled`] if the process has not ended within [`TimeLimits::vmm_kill`].
    pub async fn kill(&self) -> Result<(), Error> {
        let Some(running) = &self.running else {
            return Ok(());
        };
        let killed = running.process_tree.kill();
        match tokio::time::timeout(self.limits.vmm_kill, self.ended()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::NotKilled {
                pid: running.process().pid(),
                limit: self.limits.vmm_kill,
                source: killed.err(),
            }),
        }
    }

    /// Stops the VMM by `vmm.shutdown`, then SIGTERM, then SIGKILL, each with its limit from [`TimeLimits`], and then
    /// removes the run directory.
    ///
    /// Legal at any time. It may be called again, and from several tasks at once; all calls return the same report. It
    /// uses a separate connection, so it works while another call on [`client`](Vmm::client) waits for its answer. It
    /// never fails: the report tells which steps failed.
    pub async fn shutdown(&self) -> ShutdownReport {
        self.shutdown
            .get_or_init(|| {
                shutdown::run(self.client.address(), self.running.as_ref(), &self.limits)
            })
            .await
            .clone()
    }
}

/// Receives the end of the process; `None` while it runs.
type EndedReceiver = watch::Receiver<Option<Ended>>;
