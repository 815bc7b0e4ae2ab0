//! The budget of memory of a pool: golden snapshots at their full size, and each VMM at what it may take.

use super::config::{PoolConfig, invalid};
use crate::golden::{LoadedGolden, available_memory};
use crate::sandbox::Error;

/// What one VMM counts for beside its guest's memory, in bytes. An idle v53.0 with mapped memory has less than 1 MiB of its
/// own, its guest's pages included (`benches/reset`, `density`); this leaves room for queues and buffers.
const VMM_OVERHEAD: u64 = 32 << 20;

const MIB: u64 = 1 << 20;

/// What one VMM counts for in the budget of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VmMemory {
    /// All of its guest's memory, as if the guest had written to each page, and 32 MiB for the VMM. Never exceeded.
    #[default]
    WorstCase,
    /// So many MiB, which the caller has measured with guests of this kind. Guests that write more than that together take
    /// memory beyond the budget.
    Measured {
        /// What one VMM takes, in MiB.
        mib: u64,
    },
}

/// How many bytes there are for golden snapshots and VMMs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    limit: u64,
    vm_memory: VmMemory,
}

impl Budget {
    /// As configured, or as much as there is now.
    pub(super) fn of(config: &PoolConfig) -> Result<Budget, Error> {
        let limit = match config.memory_limit_mib {
            Some(mib) => mib.checked_mul(MIB).ok_or_else(|| {
                invalid("memory_limit_mib", "does not fit into a number of bytes")
            })?,
            None => available_memory().map_or(u64::MAX, |(available, _)| available),
        };
        Ok(Budget {
            limit,
            vm_memory: config.vm_memory,
        })
    }

    /// How many bytes the sandboxes of the configuration, their spares and these golden snapshots may take, if they fit.
    pub(super) fn check(
        &self,
        config: &PoolConfig,
        goldens: &[&LoadedGolden],
    ) -> Result<u64, Error> {
        let memory = |golden: &LoadedGolden| golden.snapshot().shape().memory_bytes();
        let largest = goldens.iter().map(|golden| memory(golden)).max();
        let largest = largest.unwrap_or(0);
        let vm = match self.vm_memory {
            VmMemory::WorstCase => largest.saturating_add(VMM_OVERHEAD),
            VmMemory::Measured { mib } => mib.saturating_mul(MIB),
        };
        let origin = config.golden()?;
        let spares = goldens
            .iter()
            .map(|golden| origin.spares_of(golden.memory()));
        let spares = spares.max().unwrap_or(0);
        let vms = u64::from(config.size) + u64::from(spares.max(1));
        let goldens: u64 = goldens.iter().map(|golden| memory(golden)).sum();
        let needed = goldens.saturating_add(vms.saturating_mul(vm));
        if needed <= self.limit {
            return Ok(needed);
        }
        let reason = format!(
            "is {}: with {spares} spares and the golden snapshot that takes up to {} MiB of memory, and there are {} MiB",
            config.size,
            needed.div_ceil(MIB),
            self.limit / MIB,
        );
        Err(invalid("size", reason))
    }
}
