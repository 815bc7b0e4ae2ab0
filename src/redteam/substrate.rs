//! [`Substrate`]: makes sandboxes in which a source of a reset's verification (a disk, the memory, the VMM, the guest)
//! gives a false reading.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;

use crate::sandbox::{CheckSource, Sandbox};

/// Makes sandboxes whose disks, guest or VMM give a false reading (a lie) to the next reset, for the probes of the
/// family `substrate`. An implementation may support only some sources: the command line can change files, and a test
/// can also simulate a VMM.
#[async_trait]
pub trait Substrate: Send + Sync {
    /// Makes a sandbox, and a lie after which `source` disagrees with its baseline.
    ///
    /// # Errors
    ///
    /// The reason why this implementation can't cause that lie, as a text for the report.
    async fn stage(&self, source: CheckSource) -> Result<StagedLie, String>;
}

/// A sandbox that has not booted, and a prepared lie.
#[non_exhaustive]
pub struct StagedLie {
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) moment: Moment,
    pub(super) what: String,
    pub(super) tell: Box<dyn FnOnce() -> io::Result<()> + Send>,
}

/// When a lie is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Before the sandbox boots. The boot must fail.
    BeforeBoot,
    /// Between the boot and a reset. The reset must not be verified.
    BeforeReset,
}

impl StagedLie {
    /// A lie that `tell` carries out at `moment`. `what` describes it in the report.
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
