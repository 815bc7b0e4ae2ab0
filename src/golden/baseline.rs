//! Baselines: what the three sources say of a machine that is known to be clean.

use serde::{Deserialize, Serialize};

use super::GoldenDisk;
use crate::api::types::VmState;
use crate::guest::protocol::VmmApiState;
use crate::machine::{DiskProof, DiskRole, Error, GuestReading, OpenInVmm, Reading, Readings};
use crate::overlay::Digest;

/// The VM's state in the words of the agent's protocol.
pub fn vmm_api_state(state: &VmState) -> VmmApiState {
    match state {
        VmState::Running => VmmApiState::Running,
        VmState::Paused => VmmApiState::Paused,
        VmState::Created | VmState::Shutdown => VmmApiState::Stopped,
        _ => VmmApiState::Error,
    }
}

/// What the three sources have to say after every reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baselines {
    /// The SHA-256 of the overlay; of the root disk where there is no separate overlay.
    pub fs_hash: Digest,
    /// The guest's open descriptors, over all processes, without sockets. Never 0.
    pub open_fd_count: u64,
    /// The VM's state. Always [`VmmApiState::Running`].
    pub vmm_api_state: VmmApiState,
}

/// The readings of a fresh revert can't serve as baselines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaselineError {
    /// A source said nothing in time.
    #[error("the {source_name} said nothing in time")]
    Silent {
        /// Which source.
        source_name: &'static str,
        /// Why.
        source: std::sync::Arc<Error>,
    },
    /// The digest is the digest of nothing: it would match every empty file, and never change.
    #[error("the {role} disk is empty; the digest of nothing proves nothing")]
    DigestOfNothing {
        /// Which disk.
        role: DiskRole,
    },
    /// The guest counted no descriptor at all, so it counts wrongly.
    #[error("the guest counted no open descriptor, but its dispatcher alone has some")]
    NoDescriptors,
    /// The VM doesn't run after a revert.
    #[error("the VM is {0:?} after the revert, not running")]
    NotRunning(VmmApiState),
    /// The disk that was put back isn't the disk that was kept.
    #[error("the {role} disk was {kept} when it was kept, and is {found} after the revert")]
    DiskChanged {
        /// Which disk.
        role: DiskRole,
        /// Its digest while the VM was paused.
        kept: Digest,
        /// Its digest after the revert.
        found: Digest,
    },
    /// The VMM serves another file than the one that was hashed.
    #[error("the {role} disk that was hashed is not the file that the VMM has open")]
    AnotherFile {
        /// Which disk.
        role: DiskRole,
    },
    /// The guest that answered isn't the one that was paused.
    #[error(
        "the guest after the revert does not have the nonce that it was given before the snapshot"
    )]
    AnotherGuest,
    /// Two reverts gave different readings, so neither is a baseline.
    #[error("two reverts differ: {first:?}, then {second:?}; let the guest settle longer")]
    Unstable {
        /// The first readings.
        first: Box<Baselines>,
        /// The second.
        second: Box<Baselines>,
    },
}

impl Baselines {
    /// Takes the readings of a revert as baselines, if they can serve: see [`BaselineError`] for what can't.
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
