//! [`PoolConfig`]: the configuration of a pool.

use std::sync::Arc;

use super::MemoryPerVm;
use crate::sandbox::{ConfigError, Error, GoldenOrigin, SandboxConfig};

/// The most sandboxes that a pool may have.
pub(super) const MAX_SIZE: u32 = 1024;

/// The configuration of a pool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolConfig {
    /// The configuration of each sandbox. It has to have a golden snapshot, which is loaded once for the pool. Its
    /// [`spares`](GoldenOrigin::spares) is the number of spares of the whole pool.
    pub sandbox: SandboxConfig,
    /// The largest number of sandboxes at the same time, spares not counted: 1 to 1,024. Default: 1.
    pub size: u32,
    /// How many clean sandboxes wait for callers: 0 to `size`. Fewer wait while callers have the others. Default: 1.
    pub idle: u32,
    /// The budget of memory: the most that the golden snapshot and all VMMs together may take, in MiB. Default: as much
    /// as the machine and its control groups leave when the pool is opened.
    pub memory_limit_mib: Option<u64>,
    /// How much memory each VMM counts for in the budget. Default: [`MemoryPerVm::WorstCase`].
    pub memory_per_vm: MemoryPerVm,
}

impl PoolConfig {
    /// A pool of one sandbox, with the defaults of all other fields.
    pub fn new(sandbox: SandboxConfig) -> Self {
        PoolConfig {
            sandbox,
            size: 1,
            idle: 1,
            memory_limit_mib: None,
            memory_per_vm: MemoryPerVm::default(),
        }
    }

    /// Sets [`size`](Self::size).
    #[must_use]
    pub fn size(self, size: u32) -> Self {
        PoolConfig { size, ..self }
    }

    /// Sets [`idle`](Self::idle).
    #[must_use]
    pub fn idle(self, idle: u32) -> Self {
        PoolConfig { idle, ..self }
    }

    /// Sets [`memory_limit_mib`](Self::memory_limit_mib).
    #[must_use]
    pub fn memory_limit_mib(self, mib: u64) -> Self {
        PoolConfig {
            memory_limit_mib: Some(mib),
            ..self
        }
    }

    /// Sets [`memory_per_vm`](Self::memory_per_vm).
    #[must_use]
    pub fn memory_per_vm(self, memory_per_vm: MemoryPerVm) -> Self {
        PoolConfig {
            memory_per_vm,
            ..self
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let checked = self.sandbox.check();
        checked.map_err(|error| Error::Config(Arc::new(error)))?;
        if !(1..=MAX_SIZE).contains(&self.size) {
            let reason = format!("is {}, not 1 to {MAX_SIZE}", self.size);
            return Err(invalid("size", reason));
        }
        if self.idle > self.size {
            let reason = format!("is {}, more than the size of {}", self.idle, self.size);
            return Err(invalid("idle", reason));
        }
        self.golden().map(drop)
    }

    /// The settings of the golden snapshot. Refuses scaffold mode, which has none.
    pub(super) fn golden(&self) -> Result<&GoldenOrigin, Error> {
        let golden = self.sandbox.golden_origin();
        golden.ok_or_else(|| invalid("golden", "is missing: scaffold mode has no pool"))
    }
}

pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> Error {
    let reason = reason.into();
    Error::Config(Arc::new(ConfigError::Invalid { field, reason }))
}
