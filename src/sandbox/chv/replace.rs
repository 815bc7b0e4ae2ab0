//! Reset by another VMM: a spare, or else a new one.
//!
//! ```text
//!   spare there? --yes--> proved again --sound--> awaken, verify --> swap; the old VMM is retired
//!        |                     |                     ^
//!        | no                  | unsound: retired    |
//!        v                     v                     |
//!   new process -----------> next spare, or stage ---+
//! ```
//!
//! The VMM that served stays where it is until the other one has been read, and is stopped behind the caller's back
//! then. If the other one fails, its process ends, and the old VM is deleted: no guest that was to be reverted goes on.

use std::mem;
use std::sync::Arc;

use super::goal::{Failure, Goal};
use super::{Running, Shared};
use crate::machine::Machine;
use crate::sandbox::verify::Verification;
use crate::sandbox::{Error, StrategyUsed};

/// A machine in which the snapshot runs, and what was read of it.
struct Replacement {
    machine: Machine,
    verification: Verification,
}

impl Shared {
    /// Puts another, reverted machine into `running`, whatever its readings say.
    pub(super) async fn replace(
        self: &Arc<Self>,
        running: &mut Running,
        goal: &Goal,
    ) -> Result<Verification, Error> {
        let Replacement {
            machine,
            verification,
        } = match self.replacement(goal).await {
            Ok(replacement) => replacement,
            // The VM that runs is not touched then.
            Err(refused @ Failure::Golden(_)) => return Err(refused.into()),
            Err(error) => {
                if let Err(error) = running.machine.delete().await {
                    tracing::warn!(%error, "the VM that was to be replaced could not be deleted");
                }
                return Err(error.into());
            }
        };
        // The old VMM's end means nothing from here on.
        self.status.next_vmm();
        running.watcher = self.watch(&machine);
        self.retired
            .add(mem::replace(&mut running.machine, machine));
        Ok(verification)
    }

    async fn replacement(&self, goal: &Goal) -> Result<Replacement, Failure> {
        while let Some((mut machine, prepared)) = self.spares.take(&self.retired) {
            match goal.recheck(&machine, prepared).await {
                Ok(prepared) => {
                    let awakened = goal.awaken(&mut machine, prepared, StrategyUsed::Standby);
                    let verification = awakened.await?;
                    return Ok(Replacement {
                        machine,
                        verification,
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a spare is not what it was, and is not used");
                    self.retired.add(machine);
                }
            }
        }
        let mut machine = Machine::start(goal.machine()).await?;
        let verification = goal.revert(&mut machine, StrategyUsed::Respawn).await?;
        Ok(Replacement {
            machine,
            verification,
        })
    }
}
