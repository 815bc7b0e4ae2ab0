//! The substrate of a reset (disks, memory, the VMM, the guest), told to lie.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;

use crate::sandbox::{Sandbox, Source};

/// Makes sandboxes whose disks, guest or VMM lie to the next reset, for the probes of the family `substrate`. What can lie
/// depends on who asks: a command can change files, a test can also play a VMM.
#[async_trait]
pub trait Substrate: Send + Sync {
    /// A sandbox of its own for a lie that makes `source` disagree with its baseline.
    ///
    /// # Errors
    ///
    /// Why this lie can't be told here, in words for the report.
    async fn stage(&self, source: Source) -> Result<StagedLie, String>;
}

/// A sandbox that has not booted, and a lie that has not been told.
#[non_exhaustive]
pub struct StagedLie {
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) moment: Moment,
    pub(super) what: String,
    pub(super) tell: Box<dyn FnOnce() -> io::Result<()> + Send>,
}

/// When a lie is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Before the sandbox boots: the boot has to be refused.
    BeforeBoot,
    /// Between its boot and a reset: the reset must not be verified.
    BeforeReset,
}

impl StagedLie {
    /// A lie of which the report says `what`; `tell` tells it.
    pub fn new(
        sandbox: Arc<dyn Sandbox>,
        moment: Moment,
        what: impl Into<String>,
        tell: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> StagedLie {
        StagedLie {
            sandbox,
            moment,
            what: what.into(),
            tell: Box::new(tell),
        }
    }
}

impl fmt::Debug for StagedLie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedLie")
            .field("moment", &self.moment)
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}
