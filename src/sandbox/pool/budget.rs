//! [`Budget`]: the memory of a pool. Each golden snapshot counts with its full size, and each VMM with the most that it
//! may take.

use std::path::PathBuf;
use std::sync::Arc;

use super::config::{PoolConfig, invalid};
use crate::golden::{LoadedGolden, available_memory};
use crate::machine;
use crate::sandbox::{BootFailure, Error, GoldenOrigin};
use crate::vmm::VmmConfig;

/// How much memory a VMM counts for beside its guest's, in bytes. An idle v53.0 with mapped memory has less than 1 MiB
/// of its own, its guest's pages included (`benches/reset`, `density`). The rest is room for queues and buffers.
const VMM_OVERHEAD: u64 = 32 << 20;

const MIB: u64 = 1 << 20;

/// How much memory one VMM counts for in the budget of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryPerVm {
    /// The guest's whole memory, as if the guest had written to every page; the disks, if they lie in a file system in
    /// memory (tmpfs); and 32 MiB for the VMM. In addition, 32 MiB for each sandbox: the empty VMM of its next reset.
    #[default]
    WorstCase,
    /// A number of MiB that the caller has measured with such guests. If the guests together write more than that, the
    /// pool takes more memory than its budget.
    Measured {
        /// How much one VMM takes, in MiB.
        mib: u64,
    },
}

/// The limit of a pool's memory, and the settings that say how much of it is needed.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    limit: u64,
    memory_per_vm: MemoryPerVm,
    size: u64,
    origin: GoldenOrigin,
    run_root: PathBuf,
}

impl Budget {
    /// The budget of a configuration. Without a configured limit, the limit is the memory that is available now.
    pub(super) fn of(config: &PoolConfig, vmm: &VmmConfig) -> Result<Budget, Error> {
        let limit = match config.memory_limit_mib {
            Some(mib) => mib.checked_mul(MIB).ok_or_else(|| {
                invalid("memory_limit_mib", "does not fit into a number of bytes")
            })?,
            None => available_memory().map_or(u64::MAX, |(available, _)| available),
        };
        let run_root = vmm.prepare_run_root();
        let run_root = run_root.map_err(|error| unusable(machine::Error::Vmm(error)))?;
        Ok(Budget {
            limit,
            memory_per_vm: config.memory_per_vm,
            size: config.size.into(),
            origin: config.golden()?.clone(),
            run_root,
        })
    }

    /// How many bytes the sandboxes, their spares and these golden snapshots may take at most. Refuses more than the
    /// limit.
    pub(super) fn check(&self, goldens: &[&LoadedGolden]) -> Result<u64, Error> {
        let mut largest = 0;
        let mut needed: u64 = 0;
        for golden in goldens {
            let vm = self.vm(golden)?;
            // With 0 spares, one empty VMM is started ahead.
            let waiting = u64::from(self.origin.spares_of(golden.memory()).max(1));
            needed = needed.saturating_add(memory(golden));
            needed = needed.saturating_add(waiting.saturating_mul(vm));
            largest = largest.max(vm);
        }
        let empty = match self.memory_per_vm {
            MemoryPerVm::WorstCase => VMM_OVERHEAD,
            MemoryPerVm::Measured { .. } => 0,
        };
        let each = largest.saturating_add(empty);
        needed = needed.saturating_add(self.size.saturating_mul(each));
        if needed <= self.limit {
            return Ok(needed);
        }
        let reason = format!(
            "is {}: the sandboxes, their spares and the golden snapshot take up to {} MiB, and the budget is {} MiB",
            self.size,
            needed.div_ceil(MIB),
            self.limit / MIB,
        );
        Err(invalid("size", reason))
    }

    /// How much memory one VMM of the golden snapshot takes at most, in bytes.
    fn vm(&self, golden: &LoadedGolden) -> Result<u64, Error> {
        let worst = match self.memory_per_vm {
            MemoryPerVm::WorstCase => memory(golden).saturating_add(VMM_OVERHEAD),
            MemoryPerVm::Measured { mib } => return Ok(mib.saturating_mul(MIB)),
        };
        let mut disks = golden.golden().disks().into_iter();
        disks.try_fold(worst, |sum, disk| {
            let memory = disk.memory_bytes(&self.run_root).map_err(unusable)?;
            Ok(sum.saturating_add(memory))
        })
    }
}

fn memory(golden: &LoadedGolden) -> u64 {
    golden.snapshot().shape().memory_bytes()
}

fn unusable(error: machine::Error) -> Error {
    Error::BootFailed(Arc::new(BootFailure::Machine(error)))
}
