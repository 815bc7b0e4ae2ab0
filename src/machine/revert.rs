//! The revert: from any state to the running VM of a snapshot, with what the sources say of it.
//!
//! ```text
//!              stage                               resume_and_query
//!   any state ------> paused, memory and disks proved ------------> running, channel open, three sources read
//!                        |        ^
//!                        +--------+ prewarm, recheck: a staged VM may wait for any time
//! ```
//!
//! *Stage* deletes the VM, puts the writable disks back, restores the snapshot paused, and proves memory and disks.
//! *Resume and query* resumes it, opens a channel, asks the guest who it is and renews what a snapshot shares, and asks
//! for the VM's state. A reset does the one right after the other; a spare waits in between.
//!
//! After a restore every first page access faults, so the first answers are slow. *Prewarm* takes those faults in
//! advance: the VM runs until its guest has answered once, and is paused again. Those answers prove nothing; all of
//! them are asked for again.

use std::sync::Arc;

use super::readings::Steps;
use super::{
    DiskProof, Error, Machine, MemoryReading, Readings, RecordedDisk, Snapshot, VerificationLevel,
    snapshot,
};
use crate::api;
use crate::api::types::{RestoreConfig, VmState};
use crate::offload::blocking;

/// How a machine is reverted, and to which snapshot.
#[derive(Clone, Debug)]
pub struct RevertOptions {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// How much of the disks' proof is computed anew.
    pub verification: VerificationLevel,
    /// What is known of the disks. May be empty.
    pub disks: Vec<RecordedDisk>,
}

impl RevertOptions {
    /// To this snapshot, with the defaults for everything else.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        RevertOptions {
            snapshot,
            verification: VerificationLevel::default(),
            disks: Vec::new(),
        }
    }
}

/// A restored, paused VM whose memory and disks are proved. Made by [`Machine::stage`], used up by
/// [`Machine::resume_and_query`].
#[derive(Debug)]
pub struct Staged {
    disks: Vec<DiskProof>,
    memory: MemoryReading,
}

impl Machine {
    /// Replaces whatever VM there is by the one of the snapshot, and reads the three sources.
    ///
    /// # Errors
    ///
    /// Those of [`stage`](Self::stage) and [`resume_and_query`](Self::resume_and_query). A source that stays silent is
    /// no error, but a [`Reading::Silent`](super::Reading::Silent).
    pub async fn revert(&mut self, options: &RevertOptions) -> Result<Readings, Error> {
        let mut steps = Steps::start();
        let staged = self.stage(options, &mut steps).await?;
        self.resume_and_query(staged, &mut steps).await
    }

    /// Replaces whatever VM there is by the paused one of the snapshot, and proves its memory and its disks. Legal in
    /// every state.
    ///
    /// A writable disk is filled from its origin before the restore. Every disk is proved after it, while the VM is
    /// paused.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`], after which the VM that there was is untouched. Any step that failed, as its own variant;
    /// then the VM slot is empty, or holds a VM that must not be used.
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

    /// Lets a staged VM run until its guest has answered everything that [`resume_and_query`](Self::resume_and_query)
    /// will ask, and pauses it again. The channel stays open: it outlives a pause.
    ///
    /// # Errors
    ///
    /// [`Error::GuestWrites`] when the guest changed a disk meanwhile, so that it is no longer the golden snapshot's;
    /// [`Error::Channel`], [`Error::Api`], [`Error::VmmDied`], [`Error::File`], [`Error::Disk`]. After each the VM is
    /// of no further use.
    pub async fn prewarm(
        &mut self,
        staged: Staged,
        options: &RevertOptions,
    ) -> Result<Staged, Error> {
        self.resume().await?;
        self.ask_guest().await?;
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

    /// Proves once more, after any time, that a staged VM is what it was: the VMM is ours and alive, the VM is paused,
    /// nothing but this machine's own calls happened to it, and its memory and disks are the golden snapshot's. The
    /// disks are digested anew, so it's the proof that says whether they still agree.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`] when another answers than the VMM that was started, [`Error::NotPaused`] when the VM can't be
    /// resumed, [`Error::Touched`] for an event that no call explains; [`Error::Api`], [`Error::VmmDied`],
    /// [`Error::OpenFiles`], [`Error::Disk`].
    pub async fn recheck(
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

    /// Resumes a staged VM and reads what the guest and the VMM say.
    ///
    /// # Errors
    ///
    /// Any step that failed, as its own variant. A source that stays silent is no error, but a
    /// [`Reading::Silent`](super::Reading::Silent).
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

    /// Restores the snapshot into the empty slot. The VM is paused then.
    async fn restore(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), Error> {
        let files = self.vm_files()?;
        let folder = self.layout.snapshot();
        let memory_path = self.memory.as_ref().map(|memory| memory.path.clone());
        if snapshot.memory().inherited().is_some() && memory_path.is_none() {
            return Err(Error::NotInherited);
        }
        let laid = Arc::clone(snapshot);
        let source =
            blocking(move || snapshot::lay(&laid, &folder, &files, memory_path.as_deref())).await?;
        self.call(
            "restore the VM",
            api::vm_restore(&RestoreConfig::new(source)),
        )
        .await?;
        self.hold_vsock()
    }
}
