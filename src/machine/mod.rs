//! [`Machine`]: one VMM with its VM, its channel and its disks. It boots the VM, reverts it to a snapshot, and reads
//! the three sources.
//!
//! Minting a golden snapshot and resetting a sandbox both use this module, so baselines and the readings that are
//! compared with them are taken in the same way.
//!
//! ```text
//!            start            boot                         pause
//!   (nothing) ----> empty slot ----> running, channel open ----> paused --snapshot--> paused
//!                      |   ^                 |                      |
//!               revert |   | delete          | delete               | delete
//!                      v   |                 v                      v
//!               running, channel open    empty slot             empty slot
//! ```
//!
//! An *empty slot* is a VMM without a VM. The guest never writes to a file that was given to the machine: each writable
//! disk is a private file of the machine. A spawned VMM inherits that file, which has no name. The file is filled from
//! the disk's *origin* (an image, or the copy that a golden snapshot keeps) at each boot and each revert.

mod boot;
mod directory;
mod disk;
mod disk_proof;
mod error;
mod expected_events;
mod files;
mod layout;
mod memory;
mod read_sources;
mod readings;
mod revert;
mod snapshot;
mod start;
mod vm_config;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::causes::Causes;
use crate::client::{self, Client, ErrorKind, Release};
use crate::guest::protocol::ToolDispatch;
use crate::limits::TimeLimits;
use crate::socket::SocketAddress;
use crate::vmm::{ShutdownReport, Vmm, VmmConfig};
use crate::vsock::{Channel, ChannelConfig, GuestHello, ToolAnswer};

pub use crate::overlay::DiskFormat;
pub(crate) use crate::overlay::VerificationLevel;
pub use disk::{Disk, DiskRole};
pub use disk_proof::{DiskProof, OpenInVmm, RecordedDisk};
pub use error::Error;
pub use files::VmmFiles;
pub use memory::{CopySource, GuestMemory, MemoryReading, NotMapped};
pub use readings::{GuestReading, Reading, Readings, Step, Steps};
pub use revert::{RevertOptions, Staged};
pub(crate) use snapshot::MAX_CONFIG_BYTES;
pub(crate) use snapshot::MAX_STATE_BYTES;
#[cfg(any(test, fuzzing))]
pub(crate) use snapshot::fuzz;
pub(crate) use snapshot::maps_memory;
pub use snapshot::{MemoryRegion, SNAPSHOT_FILES, Snapshot, SnapshotBytes};
pub use vm_config::VmShape;

use directory::DirectoryLock;
use disk::WorkingDisk;
use expected_events::ExpectedEvents;
use layout::Layout;
use memory::InheritedMemory;

/// How long to wait for the end of a VMM's process after its API is gone. The process may still be writing to its log.
const END_LIMIT: Duration = Duration::from_secs(1);

/// How a machine gets its VMM.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each machine, and none is moved about"
)]
pub enum VmmSource {
    /// The machine spawns a VMM and owns its process.
    Spawn(VmmConfig),
    /// The machine uses a VMM that another program runs, such as a player of recordings. Checks that need the VMM's
    /// process are not applicable then.
    Attach {
        /// The path of the VMM's api-socket.
        api_socket: PathBuf,
        /// An existing private directory for the files that the machine writes: the copies of the disks, the vsock
        /// socket. It must be this machine's alone; the machine locks it while it exists.
        directory: PathBuf,
    },
}

/// The configuration of a machine: its VMM, disks and limits. The VM itself is given to [`boot`](Machine::boot) or
/// [`revert`](Machine::revert).
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// How the machine gets its VMM.
    pub vmm: VmmSource,
    /// The disks in the VM's order: the root first, then the overlay if there is one.
    pub disks: Vec<Disk>,
    /// Where the memory of restored guests comes from. A spawned VMM inherits the file at its start, so the snapshots
    /// that the machine is reverted to must have the same memory.
    pub memory: GuestMemory,
    /// The vsock port on which the guest's dispatcher listens.
    pub port: u32,
    /// The files that a spawned VMM opens in addition to its disks.
    pub files: VmmFiles,
    /// How long each step may take, the steps of the VMM's process included. The limits of a [`VmmConfig`] in `vmm` are
    /// ignored.
    pub limits: TimeLimits,
}

/// One VMM with at most one VM in it. See the [module](self) for its states.
///
/// Dropping it kills a spawned VMM and removes the machine's files. [`shutdown`](Machine::shutdown) stops the VMM in an
/// orderly way instead.
#[derive(Debug)]
pub struct Machine {
    vmm: Vmm,
    /// The VMM's client, with this machine's limits.
    client: Client,
    layout: Layout,
    disks: Vec<WorkingDisk>,
    /// The numbers of the descriptors that the VMM has inherited.
    inherited: Vec<u32>,
    /// The VMM's descriptors that were its open disks the last time. They are checked first the next time.
    disks_found_at: Vec<u32>,
    /// The memory file that the VMM has inherited.
    memory: Option<InheritedMemory>,
    port: u32,
    limits: TimeLimits,
    channel: Option<Channel>,
    /// The vsock socket of the present VM.
    vsock: SocketAddress,
    /// Released last, after the machine's files are removed.
    _lock: Option<DirectoryLock>,
    /// Whether the VMM may have a VM. It is set before the call that makes one, as the caller may drop the future of
    /// that call.
    occupied: bool,
    caused: ExpectedEvents,
}

impl Machine {
    /// The VMM, which gives access to its process, log and events.
    pub fn vmm(&self) -> &Vmm {
        &self.vmm
    }

    /// The client of the VMM's API.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The channel to the guest, while one is open.
    pub fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// The disks as the caller gave them. For a writable disk, `origin` is the image that it is filled from at present.
    pub fn disks(&self) -> Vec<Disk> {
        self.disks.iter().map(|disk| disk.given.clone()).collect()
    }

    /// The path by which this process opens the file of the disk `role`; `None` if the machine has no such disk. A file
    /// without a name is opened through `/proc/self/fd`, which works as long as the machine exists.
    pub fn disk_path(&self, role: DiskRole) -> Option<PathBuf> {
        let disk = self.disks.iter().find(|disk| disk.role() == role)?;
        Some(disk.path())
    }

    /// The last 16 KiB of the guests' console output, as text.
    pub fn console_tail(&self) -> String {
        match self.vmm.console() {
            Some(_) => self.vmm.console_tail(),
            None => self.layout.console_tail(),
        }
    }

    /// Deletes the VM and closes the channel. Legal in every state, also without a VM; leaves the VMM without a VM.
    ///
    /// # Errors
    ///
    /// - [`Error::Api`]: the VMM refused. Then the VMM must not be used further.
    /// - [`Error::VmmDied`]: the VMM's process ended.
    /// - [`Error::File`]: the VM's vsock socket can't be removed.
    pub async fn delete(&mut self) -> Result<(), Error> {
        self.close_channel();
        self.delete_vm().await?;
        self.occupied = false;
        Ok(())
    }

    async fn delete_vm(&self) -> Result<(), Error> {
        self.call("delete the VM", crate::api::vm_delete()).await?;
        // The VMM unlinks its vsock socket at delete. If an earlier failure has left the socket, the next boot would
        // fail.
        self.layout.remove_vsock()
    }

    /// Pauses the VM. Legal while it is running.
    ///
    /// # Errors
    ///
    /// [`Error::Api`], with the kind `WrongState` if the VM isn't running; [`Error::VmmDied`] if the VMM's process
    /// ended.
    pub async fn pause(&mut self) -> Result<(), Error> {
        self.caused.expect(["pausing", "paused"]);
        self.call("pause the VM", crate::api::vm_pause()).await
    }

    async fn resume(&mut self) -> Result<(), Error> {
        self.caused.expect(["resuming", "resumed"]);
        self.call("resume the VM", crate::api::vm_resume()).await
    }

    /// Returns the release of the VMM.
    ///
    /// # Errors
    ///
    /// [`Error::Api`] if the VMM does not answer `vmm.ping`.
    pub async fn release(&self) -> Result<Release, Error> {
        let action = "report its release";
        let release = self.client().release().await;
        release.map_err(|source| Error::Api { action, source })
    }

    /// Gives the guest a nonce, which it keeps in memory only. After a revert the nonce proves that the guest was
    /// restored from the snapshot. Legal while the channel is open.
    ///
    /// # Errors
    ///
    /// [`Error::Channel`] if the guest does not answer within the limit `query`; [`Error::NoChannel`] without a
    /// channel.
    pub async fn imprint(&self, nonce: &str) -> Result<(), Error> {
        let imprinted = self.open()?.imprint(nonce, self.limits.query).await;
        imprinted.map_err(Error::Channel)
    }

    /// Asks the guest for the number of open descriptors of all its processes, without sockets. Legal while the channel
    /// is open.
    ///
    /// # Errors
    ///
    /// [`Error::Channel`] if the guest does not answer within the limit `query`; [`Error::NoChannel`] without a
    /// channel.
    pub async fn open_fd_count(&self) -> Result<u64, Error> {
        let count = self.open()?.open_fd_count(self.limits.query).await;
        count.map_err(Error::Channel)
    }

    /// Runs a tool whose writes the guest then discards ([`Channel::warm`]). Legal while the channel is open.
    ///
    /// # Errors
    ///
    /// [`Error::Channel`] if the guest gives no result; [`Error::NoChannel`] without a channel. A tool that fails is
    /// not an error: the answer tells how it ended.
    pub async fn warm(&self, dispatch: ToolDispatch) -> Result<ToolAnswer, Error> {
        let answer = self.open()?.warm(dispatch, self.limits.tool_grace).await;
        answer.map_err(Error::Channel)
    }

    fn open(&self) -> Result<&Channel, Error> {
        self.channel.as_ref().ok_or(Error::NoChannel)
    }

    /// Closes the channel to the guest. Requests that are still waiting for an answer fail.
    pub fn close_channel(&mut self) {
        if let Some(channel) = self.channel.take() {
            channel.close();
        }
    }

    /// Stops the VMM and removes the machine's files. A VMM that another program runs is left running without a VM, and
    /// there is no report.
    pub async fn shutdown(mut self) -> Option<ShutdownReport> {
        self.close_channel();
        match self.vmm.process() {
            Some(_) => Some(self.vmm.shutdown().await),
            None => {
                self.vacate().await;
                None
            }
        }
    }

    /// Deletes the VM of a VMM that another program runs, and waits until no disk is being copied. If the VMM refuses,
    /// its VM stays, which is logged. The machine's files are removed when the machine is dropped.
    pub(crate) async fn vacate(&mut self) {
        if let Err(error) = self.delete().await {
            tracing::warn!(error = %Causes(&error), "cannot delete the VM in the VMM of another program");
        }
        for disk in &self.disks {
            disk.copied().await;
        }
    }

    /// Kills the VMM with its forks, without a call of its API, and waits until it has ended. The disks' files and the
    /// logs stay until the machine is dropped. Does nothing to a VMM that another program runs.
    ///
    /// # Errors
    ///
    /// [`Error::Vmm`] if the process has not ended within the limit [`TimeLimits::vmm_kill`].
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.close_channel();
        self.vmm.kill().await.map_err(Error::Vmm)
    }

    /// Opens the channel and greets the guest, both before `until`. Returns `None` for a dispatcher that is older than
    /// the greeting.
    async fn open_channel(&mut self, until: Instant) -> Result<Option<GuestHello>, Error> {
        self.connect(until).await?;
        let hello = self.open()?.hello(self.query_limit(until)).await;
        hello.map_err(Error::Channel)
    }

    /// Opens the channel before `until`, without a greeting.
    async fn connect(&mut self, until: Instant) -> Result<(), Error> {
        let limit = until.saturating_duration_since(Instant::now());
        let config = ChannelConfig {
            port: self.port,
            limits: self.limits.boot(limit),
            ..ChannelConfig::new(self.vsock.clone())
        };
        // Connecting to a dead VMM's socket fails in the same way as to a guest that is still booting, so the process
        // is watched as well.
        let channel = tokio::select! {
            opened = Channel::open(&config) => opened.map_err(Error::Channel)?,
            ended = self.vmm.ended() => return Err(Error::VmmDied {
                action: "open the channel to its guest",
                ended: Box::new(ended),
                source: None,
            }),
        };
        self.channel = Some(channel);
        Ok(())
    }

    /// Holds the vsock socket of the VM that was just made and removes its path, if the VMM's sockets are hidden.
    fn hold_vsock(&mut self) -> Result<(), Error> {
        if self.vmm.hides_sockets() {
            self.vsock = self.layout.hold_vsock()?;
        }
        Ok(())
    }

    /// The limit of one query if all queries must be answered before `until`.
    fn query_limit(&self, until: Instant) -> Duration {
        let left = until.saturating_duration_since(Instant::now());
        self.limits.query.min(left)
    }

    async fn call<T>(
        &self,
        action: &'static str,
        request: crate::api::Request<T>,
    ) -> Result<T, Error> {
        match self.client().send(request).await {
            Ok(answer) => Ok(answer),
            Err(source) => Err(self.explain(action, source).await),
        }
    }

    /// Makes the error of a failed call. If the VMM is gone, the error has the end of its process and its log.
    async fn explain(&self, action: &'static str, source: client::Error) -> Error {
        let gone = matches!(source.kind(), ErrorKind::NoListener | ErrorKind::VmmGone);
        match gone && self.vmm.process().is_some() {
            true => match timeout(END_LIMIT, self.vmm.ended()).await {
                Ok(ended) => Error::VmmDied {
                    action,
                    ended: Box::new(ended),
                    source: Some(source),
                },
                Err(_) => Error::Api { action, source },
            },
            false => Error::Api { action, source },
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.layout.remove();
    }
}
