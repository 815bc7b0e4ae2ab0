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
//! for the VM's state. A reset in place does the one right after the other; a spare waits in between.
//!
//! After a restore every first page access faults, so the first answers are slow. *Prewarm* takes those faults in
//! advance: the VM runs until its guest has answered once, and is paused again. Those answers prove nothing; all of them
//! are asked for again.

use std::sync::Arc;

use super::prove::AtRest;
use super::readings::Steps;
use super::{
    DiskReading, Error, KnownDisk, Machine, MemoryReading, Readings, Snapshot, Step,
    VerificationLevel,
};
use crate::api;
use crate::api::types::VmState;

/// How a machine is reverted, and to which snapshot.
#[derive(Clone, Debug)]
pub struct RevertOptions {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// How much of the disks' proof is computed anew.
    pub verification: VerificationLevel,
    /// What is known of the disks. May be empty.
    pub disks: Vec<KnownDisk>,
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
    at_rest: Vec<Option<AtRest>>,
    disks: Vec<DiskReading>,
    memory: MemoryReading,
    steps: Steps,
}

impl Staged {
    /// What staging took, step by step.
    pub fn steps(&self) -> &[Step] {
        self.steps.so_far()
    }
}

impl Machine {
    /// Replaces whatever VM there is by the one of the snapshot, and reads the three sources.
    ///
    /// # Errors
    ///
    /// Those of [`stage`](Self::stage) and [`resume_and_query`](Self::resume_and_query). A source that stays silent is no
    /// error, but a [`Reading::Silent`](super::Reading::Silent).
    pub async fn revert(&mut self, options: &RevertOptions) -> Result<Readings, Error> {
        let staged = self.stage(options).await?;
        self.resume_and_query(staged).await
    }

    /// Replaces whatever VM there is by the paused one of the snapshot, and proves its memory and its disks. Legal in
    /// every state.
    ///
    /// A read-only disk is digested as it is found, before the VMM opens it. A writable one is put back from its
    /// origin. If this VMM never ran a guest, that is digested at rest as well; if it did, such a digest would say
    /// nothing of what the VMM did since, so it is taken after the restore, while the VM is paused.
    ///
    /// # Errors
    ///
    /// Those of [`check_disks`](Self::check_disks) and [`Error::Memory`], after which the VM that there was is untouched.
    /// Any step that failed, as its own variant; then the VM slot is empty, or holds a VM that must not be used.
    pub async fn stage(&mut self, options: &RevertOptions) -> Result<Staged, Error> {
        let mut steps = Steps::start();
        self.check_disks().await?;
        let lease = options.snapshot.memory().ensure().await?;
        if let Some(took) = self.started.take() {
            steps.before("start", took);
        }
        self.close_channel();
        let clear = async {
            if self.occupied {
                self.delete_vm().await?;
                steps.end("delete");
            }
            Ok(())
        };
        // At once: a disk that is put back is a new file, and the VMM keeps the old one until it has let go of it.
        let (cleared, at_rest) = tokio::join!(clear, self.lay_disks(options));
        cleared?;
        let at_rest = at_rest?;
        steps.end("disks");

        self.occupied = true;
        self.restore(&options.snapshot).await?;
        steps.end("restore");

        let memory = self.read_memory(&options.snapshot, lease).await?;
        let disks = self.prove_disks(&at_rest, options).await?;
        steps.end("digest");
        Ok(Staged {
            at_rest,
            disks,
            memory,
            steps,
        })
    }

    /// Lets a staged VM run until its guest has answered everything that [`resume_and_query`](Self::resume_and_query) will ask, and pauses it
    /// again. The channel stays open: it outlives a pause.
    ///
    /// # Errors
    ///
    /// [`Error::GuestWrites`] when the guest changed a disk meanwhile, so that its proof no longer stands;
    /// [`Error::Channel`], [`Error::Api`], [`Error::VmmDied`], [`Error::File`]. After each the VM is of no further use.
    pub async fn prewarm(&mut self, staged: Staged) -> Result<Staged, Error> {
        self.served = true;
        self.call("resume the VM", api::vm_resume()).await?;
        self.ask_guest().await?;
        self.pause().await?;
        for (disk, at_rest) in self.disks.iter().zip(&staged.at_rest) {
            if let Some(at_rest) = at_rest
                && !at_rest.is_unchanged(disk)?
            {
                return Err(Error::GuestWrites { role: disk.role });
            }
        }
        Ok(staged)
    }

    /// Proves once more, after any time, that a staged VM is what it was: the VMM is ours and alive, the VM is
    /// paused, its disks are what they were. The steps count from here.
    ///
    /// A disk whose timestamps have changed is digested anew, so it's the reading that says whether it still agrees.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`] when another answers than the VMM that was started, [`Error::NotPaused`] when the VM can't be
    /// resumed; [`Error::Api`], [`Error::VmmDied`], [`Error::OpenFiles`], [`Error::Disk`].
    pub async fn recheck(&self, staged: Staged, options: &RevertOptions) -> Result<Staged, Error> {
        let mut steps = Steps::start();
        if let Err(error) = self.vmm.prove_identity() {
            return Err(Error::NotOurs(error));
        }
        let info = self.call("tell the VM's state", api::vm_info()).await?;
        if info.state != VmState::Paused {
            return Err(Error::NotPaused { state: info.state });
        }
        let memory = self.read_memory_again(&options.snapshot, staged.memory);
        let memory = memory.await?;
        let disks = self.prove_disks(&staged.at_rest, options).await?;
        steps.end("recheck");
        Ok(Staged {
            disks,
            memory,
            steps,
            ..staged
        })
    }

    /// Resumes a staged VM and reads what the guest and the VMM say.
    ///
    /// # Errors
    ///
    /// Any step that failed, as its own variant. A source that stays silent is no error, but a
    /// [`Reading::Silent`](super::Reading::Silent).
    pub async fn resume_and_query(&mut self, staged: Staged) -> Result<Readings, Error> {
        let Staged {
            at_rest: _,
            disks,
            memory,
            mut steps,
        } = staged;
        self.served = true;
        self.call("resume the VM", api::vm_resume()).await?;
        steps.end("resume");

        let guest = self.read_guest().await?;
        steps.end("guest");

        let vm_state = self.read_vm_state().await?;
        steps.end("vm_state");

        let vmm = self.vmm.prove_identity().map_err(Arc::new).transpose();
        steps.end("vmm_identity");
        Ok(Readings {
            disks,
            memory,
            guest,
            vm_state,
            vmm,
            steps: steps.finish(),
        })
    }

    /// Puts the writable disks back, and digests what no VMM will have written to.
    async fn lay_disks(&self, options: &RevertOptions) -> Result<Vec<Option<AtRest>>, Error> {
        let mut at_rest = Vec::with_capacity(self.disks.len());
        for disk in &self.disks {
            disk.put_back().await?;
            at_rest.push(match disk.readonly || !self.served {
                true => Some(AtRest::take(disk, options).await?),
                false => None,
            });
        }
        Ok(at_rest)
    }
}
