//! The revert: replaces the machine's VM by the running VM of a snapshot, and reads the three sources
//! ([`Machine::revert`]).
//!
//! ```text
//!              stage                               resume_and_query
//!   any state ------> paused, memory and disks proved ------------> running, channel open, three sources read
//!                        |        ^
//!                        +--------+ prewarm, recheck: a staged VM may wait for any time
//! ```
//!
//! *Stage* deletes the VM, fills the writable disks from their origins, restores the snapshot paused, and proves memory
//! and disks. *Resume and query* resumes the VM, opens a channel, reads the guest's greeting, gives the guest a new
//! random seed and the time, reads its count of open descriptors, and asks the VMM for the VM's state. A reset does
//! both one after the other. A spare waits between them.
//!
//! After a restore every first page access faults, so the first answers are slow. *Prewarm* takes those faults in
//! advance: the VM runs until its guest has answered once, and is paused again. These answers are discarded, and the
//! same queries are sent again when the VM is resumed.

use std::sync::Arc;

use super::readings::Steps;
use super::{
    DiskProof, Error, Machine, MemoryReading, Readings, RecordedDisk, Snapshot, VerificationLevel,
    snapshot,
};
use crate::api;
use crate::api::types::{RestoreConfig, VmState};
use crate::offload::blocking;

/// The options of a revert.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RevertOptions {
    /// The snapshot to which the machine is reverted.
    pub snapshot: Arc<Snapshot>,
    /// How much of the disks' proof is computed anew.
    pub verification: VerificationLevel,
    /// The recorded digests of the disks. A disk that is not listed is hashed whole.
    pub disks: Vec<RecordedDisk>,
}

impl RevertOptions {
    /// Reverts to this snapshot, with the default verification and no recorded digests.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        RevertOptions {
            snapshot,
            verification: VerificationLevel::default(),
            disks: Vec::new(),
        }
    }
}

/// The proofs of a restored, paused VM's memory and disks. [`Machine::stage`] makes them, and
/// [`Machine::resume_and_query`] consumes them.
#[derive(Debug)]
pub struct Staged {
    disks: Vec<DiskProof>,
    memory: MemoryReading,
}

impl Machine {
    /// Replaces the VM by that of the snapshot, and reads the three sources. Legal in every state, also without a VM;
    /// leaves the VM running.
    ///
    /// # Errors
    ///
    /// Those of [`stage`](Self::stage) and [`resume_and_query`](Self::resume_and_query). A source that stays silent is
    /// not an error: it gives a [`Reading::Silent`](super::Reading::Silent).
    pub async fn revert(&mut self, options: &RevertOptions) -> Result<Readings, Error> {
        let mut steps = Steps::start();
        let staged = self.stage(options, &mut steps).await?;
        self.resume_and_query(staged, &mut steps).await
    }

    /// Replaces the VM by that of the snapshot, paused, and proves its memory and its disks. Legal in every state, also
    /// without a VM; leaves the VM paused.
    ///
    /// A writable disk is filled from its origin before the restore. Every disk is proved after the restore, while the
    /// VM is paused.
    ///
    /// # Errors
    ///
    /// - [`Error::Memory`]: a leased memory file can't be held, or no longer has the verified bytes. The earlier VM is
    ///   untouched.
    ///
    /// After any other error there is no VM, or one that must not be used:
    ///
    /// - [`Error::Disk`], [`Error::File`]: a disk or another file can't be opened, filled or hashed.
    /// - [`Error::Api`], [`Error::VmmDied`]: the VMM refused a call, gave no answer in time, or ended.
    /// - [`Error::NotInherited`]: the VMM was started without the snapshot's memory file.
    /// - [`Error::MemoryNotHeld`]: a process opened the leased memory file for writing during the restore.
    /// - [`Error::OpenFiles`]: the VMM's mappings or open files can't be read.
    /// - [`Error::NotUtf8`]: a path isn't UTF-8.
    pub async fn stage(
        &mut self,
        options: &RevertOptions,
        steps: &mut Steps,
    ) -> Result<Staged, Error> {
        let lease = options.snapshot.memory().ensure().await?;
        self.close_channel();
        if self.occupied {
            self.delete_vm().await?;
            steps.end("delete");
        }
        for disk in &self.disks {
            disk.put_back().await?;
        }
        steps.end("disks");

        self.occupied = true;
        self.caused.expect(["restoring", "restored"]);
        self.restore(&options.snapshot).await?;
        steps.end("restore");

        let memory = self.read_memory(&options.snapshot, lease).await?;
        steps.end("memory");
        let disks = self.prove_disks(options, steps).await?;
        Ok(Staged { disks, memory })
    }

    /// Lets a staged VM run until its guest has answered every query of [`resume_and_query`](Self::resume_and_query),
    /// and pauses it again. The channel stays open during the pause.
    ///
    /// # Errors
    ///
    /// After each of them the VM must not be used further.
    ///
    /// - [`Error::GuestWrites`]: the guest changed a disk, which therefore no longer has the golden snapshot's bytes.
    /// - [`Error::Channel`]: the guest gave no answer in time, or broke the protocol.
    /// - [`Error::Api`], [`Error::VmmDied`]: the VMM refused a call, gave no answer in time, or ended.
    /// - [`Error::File`], [`Error::Disk`], [`Error::OpenFiles`]: a disk can't be proved again, or the host's random
    ///   pool can't be read.
    pub async fn prewarm(
        &mut self,
        staged: Staged,
        options: &RevertOptions,
    ) -> Result<Staged, Error> {
        self.resume().await?;
        self.query_guest().await?;
        self.pause().await?;
        let disks = self.prove_disks(options, &mut Steps::start()).await?;
        let bytes = |disk: &DiskProof| (disk.bytes.digest.sha256, disk.bytes.length);
        for (before, after) in staged.disks.iter().zip(&disks) {
            if bytes(before) != bytes(after) {
                return Err(Error::GuestWrites { role: after.role });
            }
        }
        Ok(Staged { disks, ..staged })
    }

    /// Proves again, after a staged VM has waited for any time, that it is unchanged: the VMM is the process that was
    /// started, the VM is paused, the VMM has reported no event that this machine's calls don't explain, and the memory
    /// is mapped as before. The disks are proved anew; the caller compares their digests with the recorded ones.
    ///
    /// # Errors
    ///
    /// - [`Error::NotOurs`]: the process that answers is not proved to be the VMM that was started.
    /// - [`Error::NotPaused`]: the VM is in another state.
    /// - [`Error::Touched`]: the VMM reported an event that no call explains.
    /// - [`Error::Api`], [`Error::VmmDied`]: the VMM refused a call, gave no answer in time, or ended.
    /// - [`Error::OpenFiles`], [`Error::Disk`], [`Error::File`]: the mappings or the disks can't be proved.
    pub(crate) async fn recheck(
        &mut self,
        staged: Staged,
        options: &RevertOptions,
        steps: &mut Steps,
    ) -> Result<Staged, Error> {
        if let Err(error) = self.vmm.prove_identity() {
            return Err(Error::NotOurs(error));
        }
        steps.end("identity");
        let info = self.call("report the VM's state", api::vm_info()).await?;
        if info.state != VmState::Paused {
            return Err(Error::NotPaused { state: info.state });
        }
        if let Some(event) = self.caused.unexpected() {
            return Err(Error::Touched { event });
        }
        steps.end("paused");
        let memory = self.read_memory_again(&options.snapshot, staged.memory);
        let memory = memory.await?;
        steps.end("memory");
        let disks = self.prove_disks(options, steps).await?;
        Ok(Staged { disks, memory })
    }

    /// Resumes a staged VM, and reads the guest's answers, the VM's state and the VMM's identity. Leaves the VM
    /// running.
    ///
    /// # Errors
    ///
    /// - [`Error::Api`], [`Error::VmmDied`]: the VMM refused a call, did not resume the VM in time, or ended.
    /// - [`Error::Channel`]: the guest broke the protocol.
    /// - [`Error::File`]: the host's random pool can't be read.
    ///
    /// A source that stays silent is not an error: it gives a [`Reading::Silent`](super::Reading::Silent).
    pub async fn resume_and_query(
        &mut self,
        staged: Staged,
        steps: &mut Steps,
    ) -> Result<Readings, Error> {
        self.resume().await?;
        steps.end("resume");

        let guest = self.read_guest().await?;
        steps.end("guest");

        let vm_state = self.read_vm_state().await?;
        steps.end("vm_state");

        let vmm = self.vmm.prove_identity().map_err(Arc::new).transpose();
        steps.end("vmm_identity");
        Ok(Readings {
            disks: staged.disks,
            memory: staged.memory,
            guest,
            vm_state,
            vmm,
        })
    }

    /// Restores the snapshot while the VMM has no VM. Leaves the VM paused.
    async fn restore(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), Error> {
        let files = self.vm_files()?;
        let folder = self.layout.snapshot();
        let memory_path = self.memory.as_ref().map(|memory| memory.path.clone());
        if snapshot.memory().inherited().is_some() && memory_path.is_none() {
            return Err(Error::NotInherited);
        }
        let laid = Arc::clone(snapshot);
        let source = blocking(move || {
            snapshot::write_folder(&laid, &folder, &files, memory_path.as_deref())
        })
        .await?;
        self.call(
            "restore the VM",
            api::vm_restore(&RestoreConfig::new(source)),
        )
        .await?;
        self.hold_vsock()
    }
}
