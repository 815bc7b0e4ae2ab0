//! One VMM with its VM, its channel and its disks: cold boot, revert to a snapshot, readings.
//!
//! Minting a golden snapshot and resetting a sandbox both go through this module, so that a baseline is
//! read in exactly the way in which it is later compared.
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
//! The guest never writes to a file that was given to the machine: each writable disk is a private file of the machine's
//! own, without a name where the VMM is ours, filled from its *origin* (an image's overlay, or the copy that a golden
//! snapshot keeps) at each boot and each revert.

mod ask;
mod boot;
mod caused;
mod directory;
mod disk;
mod error;
mod files;
mod layout;
mod memory;
mod prove;
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

pub use crate::overlay::{DiskFormat, VerificationLevel};
pub use disk::{Disk, DiskRole};
pub use error::Error;
pub use files::FurtherFiles;
pub use memory::{CopySource, GuestMemory, MemoryReading, NotMapped};
pub use prove::{DiskProof, OpenInVmm, RecordedDisk};
pub use readings::{GuestReading, Reading, Readings, Step, Steps};
pub use revert::{RevertOptions, Staged};
#[cfg(any(test, fuzzing))]
pub(crate) use snapshot::fuzz;
pub use snapshot::{
    MAX_CONFIG_BYTES, MAX_STATE_BYTES, MemoryRegion, SNAPSHOT_FILES, Snapshot, SnapshotBytes,
    maps_memory,
};
pub use vm_config::VmShape;

use caused::CausedEvents;
use directory::DirectoryLock;
use disk::WorkingDisk;
use layout::Layout;
use memory::InheritedMemory;

/// How long the end of a VMM is waited for whose API is gone: it may still be writing its last words.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Where the VMM of a machine comes from.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each machine, and none is moved about"
)]
pub enum VmmSource {
    /// A process that is spawned, and owned until it ends.
    Spawn(VmmConfig),
    /// A VMM that another program runs, such as a player of recordings. What needs its process can't be checked.
    Attach {
        /// Its api-socket.
        api_socket: PathBuf,
        /// An existing private directory for what the machine writes: the working disks, the vsock socket. It is this
        /// machine's alone, and locked as long as that lives.
        directory: PathBuf,
    },
}

/// What a machine is made of, apart from the VM that it holds at the moment.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Where its VMM comes from.
    pub vmm: VmmSource,
    /// Its disks in the order in which the VM has them: the root first, then the overlay if there is one.
    pub disks: Vec<Disk>,
    /// Where the memory of restored guests comes from: the VMM inherits the file at its start. Snapshots that the machine is
    /// reverted to have the same.
    pub memory: GuestMemory,
    /// The vsock port on which the guest's dispatcher listens.
    pub port: u32,
    /// What a spawned VMM opens beside its disks.
    pub files: FurtherFiles,
    /// How long each step may take, those of the VMM's process included: the limits of a [`VmmConfig`] in `vmm` aren't used.
    pub limits: TimeLimits,
}

/// One VMM with at most one VM in it. See the [module](self) for its states.
///
/// Dropping it kills the VMM and removes what it wrote; [`shutdown`](Machine::shutdown) does the same in order.
#[derive(Debug)]
pub struct Machine {
    vmm: Vmm,
    /// The VMM's client, with this machine's limits.
    client: Client,
    layout: Layout,
    disks: Vec<WorkingDisk>,
    /// The numbers of the descriptors that the VMM has inherited.
    inherited: Vec<u32>,
    /// The VMM's descriptors by which its disks were found to be open, to be looked at first the next time.
    disks_found_at: Vec<u32>,
    /// The memory file that the VMM has inherited.
    memory: Option<InheritedMemory>,
    port: u32,
    limits: TimeLimits,
    channel: Option<Channel>,
    /// The vsock socket of the VM that there is.
    vsock: SocketAddress,
    /// Released last, once what the machine wrote is gone.
    _lock: Option<DirectoryLock>,
    /// Whether there may be a VM, if only by a call whose answer was not awaited.
    occupied: bool,
    caused: CausedEvents,
}

impl Machine {
    /// The VMM, for what concerns its process.
    pub fn vmm(&self) -> &Vmm {
        &self.vmm
    }

    /// The client of the VMM's API.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The channel to the guest, while there is one.
    pub fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// The disks as they were given, a writable one with what it is put back from now.
    pub fn disks(&self) -> Vec<Disk> {
        self.disks.iter().map(|disk| disk.given.clone()).collect()
    }

    /// The path by which this process opens the file that the VM has for `role`, if it has such a disk. One without a name
    /// is reached through `/proc/self/fd`, as long as the machine lives.
    pub fn disk_path(&self, role: DiskRole) -> Option<PathBuf> {
        let disk = self.disks.iter().find(|disk| disk.role() == role)?;
        Some(disk.path())
    }

    /// The last 16 KiB of what guests wrote to the console, as text.
    pub fn console_tail(&self) -> String {
        match self.vmm.console() {
            Some(_) => self.vmm.console_tail(),
            None => self.layout.console_tail(),
        }
    }

    /// Deletes the VM, whatever state it is in, and closes the channel. The slot is empty then. Does nothing
    /// harmful to an empty slot.
    ///
    /// # Errors
    ///
    /// [`Error::Api`] when the VMM refused; then the VMM is of no further use.
    pub async fn delete(&mut self) -> Result<(), Error> {
        self.close_channel();
        self.delete_vm().await?;
        self.occupied = false;
        Ok(())
    }

    async fn delete_vm(&self) -> Result<(), Error> {
        self.call("delete the VM", crate::api::vm_delete()).await?;
        // The VMM unlinks its vsock socket at delete; one that an earlier failure left would stop the next boot.
        self.layout.remove_vsock()
    }

    /// Pauses the running VM.
    ///
    /// # Errors
    ///
    /// [`Error::Api`], with kind `WrongState` when it isn't running.
    pub async fn pause(&mut self) -> Result<(), Error> {
        self.caused.expect(["pausing", "paused"]);
        self.call("pause the VM", crate::api::vm_pause()).await
    }

    async fn resume(&mut self) -> Result<(), Error> {
        self.caused.expect(["resuming", "resumed"]);
        self.call("resume the VM", crate::api::vm_resume()).await
    }

    /// The release of the VMM.
    ///
    /// # Errors
    ///
    /// [`Error::Api`].
    pub async fn release(&self) -> Result<Release, Error> {
        let action = "tell its release";
        let release = self.client().release().await;
        release.map_err(|source| Error::Api { action, source })
    }

    /// Gives the guest a secret that it keeps in memory only, by which it is known after a revert.
    ///
    /// # Errors
    ///
    /// [`Error::Channel`].
    pub async fn imprint(&self, nonce: &str) -> Result<(), Error> {
        let imprinted = self.open()?.imprint(nonce, self.limits.query).await;
        imprinted.map_err(Error::Channel)
    }

    /// The guest's open descriptors, over all processes, without sockets.
    ///
    /// # Errors
    ///
    /// [`Error::Channel`].
    pub async fn open_fd_count(&self) -> Result<u64, Error> {
        let count = self.open()?.open_fd_count(self.limits.query).await;
        count.map_err(Error::Channel)
    }

    /// Runs a tool whose writes the guest throws away ([`Channel::warm`]).
    ///
    /// # Errors
    ///
    /// [`Error::Channel`]: what the channel says, and nothing of how the tool ended.
    pub async fn warm(&self, dispatch: ToolDispatch) -> Result<ToolAnswer, Error> {
        let answer = self.open()?.warm(dispatch, self.limits.tool_grace).await;
        answer.map_err(Error::Channel)
    }

    fn open(&self) -> Result<&Channel, Error> {
        self.channel.as_ref().ok_or(Error::NoChannel)
    }

    /// Closes the channel to the guest. What is in flight on it fails.
    pub fn close_channel(&mut self) {
        if let Some(channel) = self.channel.take() {
            channel.close();
        }
    }

    /// Stops the VMM and removes what the machine wrote. A VMM that another program runs goes on, without a VM,
    /// and there is no report.
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

    /// Leaves the VMM of another program without a VM, if that VMM does as it is told, and waits until no copy of a disk is
    /// under way. What the machine wrote is removed when it is dropped.
    pub async fn vacate(&mut self) {
        if let Err(error) = self.delete().await {
            tracing::warn!(error = %Causes(&error), "a VM stays in the VMM of another program");
        }
        for disk in &self.disks {
            disk.copied().await;
        }
    }

    /// Kills the VMM with its forks, without a word to it, and waits until it has ended. What the VM wrote to its disks, and
    /// the logs, stay until the machine is dropped. Does nothing to a VMM that another program runs.
    ///
    /// # Errors
    ///
    /// [`Error::Vmm`] when the kernel hasn't ended it in time ([`TimeLimits::vmm_kill`]).
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.close_channel();
        self.vmm.kill().await.map_err(Error::Vmm)
    }

    /// Opens the channel and greets the guest, all before `until`. `None`: a guest older than the greeting.
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
        // A dead VMM's socket looks like that of a guest that is still coming up.
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

    /// Takes over the vsock socket of the VM that was just made.
    fn hold_vsock(&mut self) -> Result<(), Error> {
        if self.vmm.hides_sockets() {
            self.vsock = self.layout.hold_vsock()?;
        }
        Ok(())
    }

    /// How long one query may take when all of them have to be answered by `until`.
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

    /// A VMM that is gone can't say why, but its exit and its log do.
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
