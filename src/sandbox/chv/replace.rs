//! Reset by another VMM: a spare, or else a new one.
//!
//! ```text
//!   spare there? --yes--> proved again, resumed --read--> verify --> swap; the old VMM is retired
//!     ^      |                 |                             ^
//!     |      | no              | neither: told, retired      |
//!     +------|-----------------+                             |
//!            v                                               |
//!       new process --compared with the manifest, staged, resumed
//! ```
//!
//! A spare counts for nothing until it was read: one that fails before is passed over, and in the end a new process
//! serves, from which as much is asked. What a spare's readings say, its disks' digests among them, is said of the
//! reset: a spare whose overlay was changed while it waited halts the sandbox as any other divergence does.
//!
//! The VMM that served stays where it is until the other one has been read, and is stopped behind the caller's back
//! then. If the other one fails, its process ends, and the old VM is deleted, or its VMM killed: no guest that was to be
//! reverted goes on.

use std::mem;
use std::sync::Arc;

use super::reset_target::{Failure, Prepared, ResetTarget, Reverted};
use super::{Running, Shared};
use crate::causes::Causes;
use crate::machine::Machine;
use crate::sandbox::{Error, Event, StrategyUsed};

/// A machine in which the snapshot runs, and what was read of it.
struct Replacement {
    machine: Machine,
    reverted: Reverted,
}

impl Shared {
    /// Puts another, reverted machine into `running`, whatever its readings say.
    pub(super) async fn replace(
        self: &Arc<Self>,
        running: &mut Running,
        target: &ResetTarget,
    ) -> Result<Reverted, Error> {
        let replacement = match self.replacement(target).await {
            Ok(replacement) => replacement,
            // The VM that runs is not touched then.
            Err(refused @ Failure::Golden(_)) => return Err(refused.into()),
            Err(error) => {
                if let Err(error) = running.machine.delete().await {
                    tracing::warn!(error = %Causes(&error), "the VM that was to be replaced could not be deleted");
                    self.give_up(running).await;
                }
                return Err(error.into());
            }
        };
        Ok(self.swap(running, replacement))
    }

    /// Reverts the VM in the VMM that runs. One that gives no answer in time is killed with its guest: nobody knows
    /// whether it ever would. A new one takes its place then, or will at the next reset, if there can't be one now.
    pub(super) async fn revert_in_place(
        self: &Arc<Self>,
        running: &mut Running,
        target: &ResetTarget,
    ) -> Result<Reverted, Error> {
        if !running.given_up {
            let reverted = target.revert(&mut running.machine, StrategyUsed::InPlace);
            let error = match reverted.await {
                Err(Failure::Machine(error)) if error.is_silence_of_vmm() => error,
                reverted => return Ok(reverted?),
            };
            if running.machine.vmm().process().is_none() {
                return Err(Error::ResetFailed(error));
            }
            tracing::error!(error = %Causes(&error), "the VMM is given up");
            self.give_up(running).await;
            self.status
                .tell(Event::VmmGivenUp(Arc::new(Error::ResetFailed(error))));
        }
        let replacement = new_machine(target).await?;
        Ok(self.swap(running, replacement))
    }

    /// Kills the VMM, if it is ours. Its machine stays, for what it has left.
    async fn give_up(&self, running: &mut Running) {
        // From here on its end means nothing.
        self.status.next_vmm();
        running.given_up = running.machine.vmm().process().is_some();
        running.machine.vmm().kill().await;
    }

    fn swap(self: &Arc<Self>, running: &mut Running, replacement: Replacement) -> Reverted {
        // The old VMM's end means nothing from here on.
        self.status.next_vmm();
        running.watcher = self.watch(&replacement.machine);
        running.given_up = false;
        self.retired
            .add(mem::replace(&mut running.machine, replacement.machine));
        replacement.reverted
    }

    async fn replacement(&self, target: &ResetTarget) -> Result<Replacement, Failure> {
        while let Some((mut machine, prepared)) = self.spares.take(&self.retired) {
            match resume_spare(target, &mut machine, prepared).await {
                Ok(reverted) => {
                    return Ok(Replacement { machine, reverted });
                }
                Err(error) => {
                    self.retired.add(machine);
                    // No other VMM would be restored from it either.
                    if let Failure::Golden(_) = error {
                        return Err(error);
                    }
                    tracing::warn!(error = %Causes(&error), "a spare is not what it was, and is not used");
                    self.status
                        .tell(Event::SpareRefused(Arc::new(error.into())));
                }
            }
        }
        new_machine(target).await
    }
}

/// Proves once more a spare that has waited, and lets it run.
async fn resume_spare(
    target: &ResetTarget,
    machine: &mut Machine,
    prepared: Prepared,
) -> Result<Reverted, Failure> {
    let prepared = target.recheck(machine, prepared).await?;
    target
        .resume_and_verify(machine, prepared, StrategyUsed::Standby)
        .await
}

async fn new_machine(target: &ResetTarget) -> Result<Replacement, Failure> {
    let mut machine = target.start().await?;
    let reverted = target.revert(&mut machine, StrategyUsed::Respawn).await?;
    Ok(Replacement { machine, reverted })
}
