//! The configuration of a pool.

use std::sync::Arc;

use super::VmMemory;
use crate::sandbox::{ConfigError, Error, GoldenOrigin, SandboxConfig};

/// The most sandboxes that a pool may have.
pub(super) const MAX_SIZE: u32 = 1024;

/// How a pool is made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolConfig {
    /// How each sandbox is made. Its golden snapshot is the pool's, and so are its spares.
    pub sandbox: SandboxConfig,
    /// The most sandboxes at the same time, spares not counted: 1 to 1,024. 1 unless set.
    pub size: u32,
    /// How many clean sandboxes are to wait for callers, as far as `size` allows. 1 unless set.
    pub idle: u32,
    /// The most memory that the golden snapshot and all VMMs together may take, in MiB. Unless set, as much as the machine
    /// and its control groups leave when the pool is opened.
    pub memory_limit_mib: Option<u64>,
    /// What one VMM counts for in that budget. The worst case unless set.
    pub vm_memory: VmMemory,
}

impl PoolConfig {
    /// A pool of one sandbox.
    pub fn new(sandbox: SandboxConfig) -> Self {
        PoolConfig {
            sandbox,
            size: 1,
            idle: 1,
            memory_limit_mib: None,
            vm_memory: VmMemory::default(),
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

    /// Sets [`vm_memory`](Self::vm_memory).
    #[must_use]
    pub fn vm_memory(self, vm_memory: VmMemory) -> Self {
        PoolConfig { vm_memory, ..self }
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

    /// The golden snapshot's settings.
    pub(super) fn golden(&self) -> Result<&GoldenOrigin, Error> {
        let golden = self.sandbox.golden_origin();
        golden.ok_or_else(|| invalid("golden", "is missing: scaffold mode has no pool"))
    }
}

pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> Error {
    let reason = reason.into();
    Error::Config(Arc::new(ConfigError::Invalid { field, reason }))
}
