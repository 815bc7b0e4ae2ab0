//! The restore of a snapshot into an empty slot, and how the guest's memory comes back.
//!
//! With `Copy` the VMM has read the whole memory when it answers. With `OnDemand` (v52.0 on) it answers at once, and
//! reads a page when the guest first touches it, which needs the right to use userfaultfd. Whether the VMM's user has
//! that right depends on the kernel's settings, the VMM's privileges and its seccomp filter, so it is found out by
//! trying: a restore that fails leaves no VM, and the next one is made as if nothing had happened.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::snapshot::{self, Description};
use super::{Error, Machine};
use crate::api;
use crate::api::types::{MemoryRestoreMode, RestoreConfig};
use crate::client::ErrorKind;

/// How the guest's memory is to come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreMode {
    /// The quickest under which memory counts as proved once the VM runs: `OnDemand` from a file that the kernel
    /// itself protects (fs-verity), `Copy` from any other.
    #[default]
    Auto,
    /// All of it before the VM runs. Known to every release.
    Copy,
    /// Each page when the guest first touches it. The restore itself is short whatever the memory's size, and the guest
    /// pays for each page later. Which of the two makes the quicker reset depends on the release, the machine and the
    /// guest: measure. `Copy` serves instead where the VMM can't do it, and the report says so.
    OnDemand,
}

/// How the memory came back, and why so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// What was asked for.
    pub asked: RestoreMode,
    /// What was done: `Copy` or `OnDemand`.
    pub mode: RestoreMode,
    /// Why `Copy` served although `OnDemand` was asked for: the VMM's refusal.
    pub refusal: Option<String>,
}

/// The wish for a mode, with what was learnt about it. Clones share that: what a VMM refused once is not tried again
/// by another one of the same kind.
#[derive(Clone, Debug, Default)]
pub struct RestorePolicy {
    mode: RestoreMode,
    on_demand_refused: Arc<OnceLock<String>>,
}

impl RestorePolicy {
    /// Nothing is known yet.
    pub fn new(mode: RestoreMode) -> Self {
        RestorePolicy {
            mode,
            on_demand_refused: Arc::default(),
        }
    }

    /// The same, with what was learnt: who leaves it to us gets the memory on demand.
    #[must_use]
    pub fn on_demand_if_auto(&self) -> Self {
        let on_demand_refused = Arc::clone(&self.on_demand_refused);
        RestorePolicy {
            mode: match self.mode {
                RestoreMode::Auto => RestoreMode::OnDemand,
                mode => mode,
            },
            on_demand_refused,
        }
    }

    fn served(&self, mode: RestoreMode) -> Restored {
        let refusal = self.on_demand_refused.get();
        let wanted = self.mode == RestoreMode::OnDemand && mode == RestoreMode::Copy;
        Restored {
            asked: self.mode,
            mode,
            refusal: refusal.filter(|_| wanted).cloned(),
        }
    }
}

impl Machine {
    /// Restores the snapshot into the empty slot. The VM is paused then.
    pub(super) async fn restore(
        &self,
        description: &Description,
        policy: &RestorePolicy,
    ) -> Result<Restored, Error> {
        let source = snapshot::adapt(description, &self.layout, &self.disks)?;
        let refused = &policy.on_demand_refused;
        let mut refusal = None;
        if policy.mode == RestoreMode::OnDemand && refused.get().is_none() {
            let on_demand = RestoreConfig {
                memory_restore_mode: Some(MemoryRestoreMode::OnDemand),
                ..RestoreConfig::new(source.clone())
            };
            match self.client().send(api::vm_restore(&on_demand)).await {
                Ok(()) => return Ok(policy.served(RestoreMode::OnDemand)),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Rejected | ErrorKind::NotSupported { .. }
                    ) =>
                {
                    refusal = Some(one_line(&error));
                }
                Err(error) => return Err(self.explain("restore the VM", error).await),
            }
            // The VMM may have bound its vsock socket before it failed.
            self.layout.remove_vsock()?;
        }
        let copy = api::vm_restore(&RestoreConfig::new(source));
        self.call("restore the VM", copy).await?;
        // The same restore works otherwise, so it was the mode that was refused, and not the snapshot.
        if let Some(refusal) = refusal {
            tracing::info!(%refusal, "memory cannot be restored on demand here: it is copied from now on");
            refused.get_or_init(|| refusal);
        }
        Ok(policy.served(RestoreMode::Copy))
    }
}

fn one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_known_to_every_clone_and_said_to_who_asked() {
        let policy = RestorePolicy::new(RestoreMode::OnDemand);
        let other = policy.clone();
        policy.on_demand_refused.set("no".to_owned()).unwrap();
        let served = other.served(RestoreMode::Copy);
        assert_eq!(served.refusal.as_deref(), Some("no"));
        assert_eq!(served.asked, RestoreMode::OnDemand);
        let copy = RestorePolicy::new(RestoreMode::Copy).on_demand_if_auto();
        assert_eq!(copy.served(RestoreMode::Copy).refusal, None);
        let auto = RestorePolicy::default().on_demand_if_auto();
        assert_eq!(auto.mode, RestoreMode::OnDemand);
    }
}
