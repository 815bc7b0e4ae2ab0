//! How a sandbox gets back to its golden snapshot.

use serde::{Deserialize, Serialize};

/// More spares than this are a mistake: each holds a whole VM.
pub const MAX_SPARES: u32 = 64;

/// Which VMM serves the sandbox after a reset.
///
/// In TOML: `strategy = "in_place"`, `strategy = "respawn"`, or
/// `strategy = { standby = { spares = 2, memory_budget_mib = 2048, max_age_s = 600 } }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// The VMM that was there: its VM is deleted and the snapshot restored into the same process. Needs no more
    /// memory than the sandbox itself.
    #[default]
    InPlace,
    /// A new VMM process, for whoever doesn't want to go on with one that has served an untrusted guest. Two VMs exist
    /// during a reset. The old one is shut down when the new one is verified, behind the caller's back.
    Respawn,
    /// A spare that waits restored, proved and paused, and whose guest has answered once already: the quickest reset.
    /// Before it serves it is proved again and its guest asked again. A reset that finds none does what `Respawn` does.
    Standby(Standby),
}

/// How many spares wait, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Standby {
    /// How many spares wait at most: 1 to [`MAX_SPARES`]. 1 unless set.
    pub spares: u32,
    /// How much memory all spares together may hold, in MiB. Each counts with its guest's whole memory, whatever it
    /// uses at the moment. Where not even one fits, there is none. 4,096 unless set.
    pub memory_budget_mib: u64,
    /// The age at which a spare is replaced by a new one, in seconds: 1 or more. 3,600 unless set.
    pub max_age_s: u64,
}

impl Default for Standby {
    fn default() -> Self {
        Standby {
            spares: 1,
            memory_budget_mib: 4096,
            max_age_s: 3600,
        }
    }
}

impl Standby {
    /// How many spares there may be of a VM with so much memory.
    pub(super) fn capacity(&self, memory_bytes: u64) -> usize {
        let budget = self.memory_budget_mib.saturating_mul(1 << 20);
        let fits = budget.checked_div(memory_bytes).unwrap_or(0);
        fits.min(u64::from(self.spares)) as usize
    }

    /// The field that can't be, and why.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        match self {
            Standby { spares: 0, .. } => Some(("strategy.standby.spares", "is 0".to_owned())),
            Standby { spares, .. } if *spares > MAX_SPARES => Some((
                "strategy.standby.spares",
                format!("is {spares}, more than {MAX_SPARES}"),
            )),
            Standby { max_age_s: 0, .. } => Some(("strategy.standby.max_age_s", "is 0".to_owned())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spares_are_bounded_by_number_and_by_their_whole_memory() {
        let check = |spares, memory_budget_mib, memory_mib: u64, expected| {
            let standby = Standby {
                spares,
                memory_budget_mib,
                ..Standby::default()
            };
            assert_eq!(standby.capacity(memory_mib << 20), expected);
        };
        check(2, 1024, 128, 2);
        check(2, 256, 128, 2);
        check(2, 255, 128, 1);
        check(2, 127, 128, 0);
        check(2, u64::MAX, 128, 2);
        check(2, 1024, 0, 0);
    }
}
