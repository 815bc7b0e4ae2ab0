//! [`Baselines`]: the values that the three sources (guest, VMM's API, disk) give for a machine that is known to be
//! clean.

use serde::{Deserialize, Serialize};

use super::GoldenDisk;
use crate::api::types::VmState;
use crate::guest::protocol::VmmApiState;
use crate::machine::{DiskProof, DiskRole, Error, GuestReading, OpenInVmm, Reading, Readings};
use crate::overlay::Digest;

/// Translates the VM's state into the state of the agent's protocol. A state that has no counterpart becomes
/// [`VmmApiState::Error`].
pub fn vmm_api_state(state: &VmState) -> VmmApiState {
    match state {
        VmState::Running => VmmApiState::Running,
        VmState::Paused => VmmApiState::Paused,
        VmState::Created | VmState::Shutdown => VmmApiState::Stopped,
        _ => VmmApiState::Error,
    }
}

/// The values that the three sources must give after every reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Baselines {
    /// The SHA-256 of the overlay, or of the root disk if there is no separate overlay.
    pub fs_hash: Digest,
    /// The number of open descriptors of all the guest's processes, without sockets. Never 0.
    pub open_fd_count: u64,
    /// The VM's state. Always [`VmmApiState::Running`].
    pub vmm_api_state: VmmApiState,
}

/// Why the readings of a revert can't serve as baselines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaselineError {
    /// A source gave no answer in time.
    #[error("the {source_name} did not answer in time")]
    Silent {
        /// The source: `guest` or `VMM's API`.
        source_name: &'static str,
        /// Why it gave no answer.
        source: std::sync::Arc<Error>,
    },
    /// The disk is empty. The digest of zero bytes matches every empty file, and so proves nothing.
    #[error("the {role} disk is empty, and the digest of an empty disk proves nothing")]
    DigestOfNothing {
        /// Which disk.
        role: DiskRole,
    },
    /// The guest reported 0 open descriptors. That is wrong, as its dispatcher alone has some.
    #[error("the guest reported 0 open descriptors, but its dispatcher alone has some")]
    NoDescriptors,
    /// The VM is not running after the revert.
    #[error("the VM is {0:?} after the revert, not running")]
    NotRunning(VmmApiState),
    /// The disk after the revert differs from the copy that the mint keeps.
    #[error(
        "the {role} disk had the digest {kept} when the mint copied it, and has {found} after the revert"
    )]
    DiskChanged {
        /// Which disk.
        role: DiskRole,
        /// The digest of the kept copy.
        kept: Digest,
        /// The digest of the disk after the revert.
        found: Digest,
    },
    /// The VMM has another file open as this disk than the one that was hashed.
    #[error("the file that was hashed as the {role} disk is not the file that the VMM has open")]
    AnotherFile {
        /// Which disk.
        role: DiskRole,
    },
    /// The guest that answered isn't the one that was snapshotted.
    #[error(
        "the guest after the revert does not have the nonce that it was given before the snapshot"
    )]
    AnotherGuest,
    /// Two reverts gave different readings, so neither can serve as a baseline.
    #[error(
        "two reverts gave different readings, {first:?} and then {second:?}: let the guest settle longer"
    )]
    Unstable {
        /// The readings of the first revert.
        first: Box<Baselines>,
        /// The readings of the second revert.
        second: Box<Baselines>,
    },
}

impl Baselines {
    /// Makes baselines of the readings of a revert. `kept` has the disks' recorded digests, and `nonce` is the nonce
    /// that the guest was given before the snapshot, if it was given one.
    ///
    /// # Errors
    ///
    /// [`BaselineError`] if the readings can't serve as baselines.
    pub(super) fn of(
        readings: &Readings,
        kept: &[GoldenDisk],
        nonce: Option<&str>,
    ) -> Result<Self, BaselineError> {
        for (disk, kept) in readings.disks.iter().zip(kept) {
            check_disk(disk, kept)?;
        }
        let guest = answered("guest", &readings.guest)?;
        check_guest(guest, nonce)?;
        let vmm_api_state = vmm_api_state(answered("VMM's API", &readings.vm_state)?);
        if vmm_api_state != VmmApiState::Running {
            return Err(BaselineError::NotRunning(vmm_api_state));
        }
        let overlay = kept.last().expect("a machine has a root disk");
        Ok(Baselines {
            fs_hash: overlay.sha256,
            open_fd_count: guest.open_fd_count,
            vmm_api_state,
        })
    }
}

fn check_disk(disk: &DiskProof, kept: &GoldenDisk) -> Result<(), BaselineError> {
    let role = disk.role;
    let found = disk.bytes.digest.sha256;
    if found == Digest::OF_NOTHING {
        return Err(BaselineError::DigestOfNothing { role });
    }
    if disk.open_in_vmm == OpenInVmm::No {
        return Err(BaselineError::AnotherFile { role });
    }
    if found != kept.sha256 {
        return Err(BaselineError::DiskChanged {
            role,
            kept: kept.sha256,
            found,
        });
    }
    Ok(())
}

fn check_guest(guest: &GuestReading, nonce: Option<&str>) -> Result<(), BaselineError> {
    let found = guest
        .hello
        .as_ref()
        .and_then(|hello| hello.nonce.as_deref());
    if nonce.is_some() && found != nonce {
        return Err(BaselineError::AnotherGuest);
    }
    match guest.open_fd_count {
        0 => Err(BaselineError::NoDescriptors),
        _ => Ok(()),
    }
}

fn answered<'a, T>(
    source_name: &'static str,
    reading: &'a Reading<T>,
) -> Result<&'a T, BaselineError> {
    match reading {
        Reading::Answered(answer) => Ok(answer),
        Reading::Silent(why) => Err(BaselineError::Silent {
            source_name,
            source: why.clone(),
        }),
    }
}
