//! How far a mint has come.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::guest::protocol::ToolName;
use crate::offload::blocking;

/// How often a file that the VMM writes is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A step of a mint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MintStep {
    /// The VM boots, and its guest answers.
    Boot,
    /// A tool warms the guest.
    Warm {
        /// Which.
        tool: ToolName,
        /// Its place among those that do, from 1.
        number: usize,
        /// How many do.
        of: usize,
    },
    /// The guest comes to rest.
    Settle,
    /// The VMM writes the guest's memory.
    Snapshot,
    /// The zeros in it become holes.
    FreeZeros,
    /// The writable disks are copied.
    KeepDisks,
    /// Disks and snapshot are digested.
    Digest,
    /// The VM is reverted to the snapshot for the first time, and read.
    FirstRevert,
    /// The same once more, which has to read the same.
    SecondRevert,
}

impl fmt::Display for MintStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MintStep::Boot => f.write_str("boot"),
            MintStep::Warm { tool, number, of } => write!(f, "warm with {tool} ({number} of {of})"),
            MintStep::Settle => f.write_str("settle"),
            MintStep::Snapshot => f.write_str("snapshot"),
            MintStep::FreeZeros => f.write_str("free zeros"),
            MintStep::KeepDisks => f.write_str("keep disks"),
            MintStep::Digest => f.write_str("digest"),
            MintStep::FirstRevert => f.write_str("first revert"),
            MintStep::SecondRevert => f.write_str("second revert"),
        }
    }
}

/// How far a mint has come. Clones tell of the same mint.
///
/// ```
/// use chv_sandbox::golden::{MintProgress, MintStep};
///
/// let progress = MintProgress::default();
/// // Give a clone of it to the mint, as `MintConfig::progress`, and ask this one meanwhile.
/// assert_eq!(progress.steps(), []);
/// ```
#[derive(Clone, Debug, Default)]
pub struct MintProgress {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    steps: Mutex<Vec<MintStep>>,
    written: AtomicU64,
    to_write: AtomicU64,
}

impl MintProgress {
    /// The steps that have begun, in order; the last one is under way, or was the mint's last.
    pub fn steps(&self) -> Vec<MintStep> {
        self.began().clone()
    }

    /// The step that began last.
    pub fn step(&self) -> Option<MintStep> {
        self.began().last().cloned()
    }

    /// How many bytes of the guest's memory the VMM has written, and how many there are. None before [`MintStep::Snapshot`].
    pub fn written(&self) -> (u64, u64) {
        let Shared {
            written, to_write, ..
        } = &*self.shared;
        let to_write = to_write.load(Ordering::Relaxed);
        (written.load(Ordering::Relaxed).min(to_write), to_write)
    }

    pub(super) fn begin(&self, step: MintStep) {
        tracing::debug!(%step, "a step of the mint begins");
        self.began().push(step);
    }

    /// Waits for what writes `length` bytes to the file `path`, and tells how many it has.
    pub(super) async fn watch_file<T>(
        &self,
        path: &Path,
        length: u64,
        writing: impl Future<Output = T>,
    ) -> T {
        let shared = &self.shared;
        shared.to_write.store(length, Ordering::Relaxed);
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let look = async {
            loop {
                ticks.tick().await;
                // It isn't there yet, or its length is what there will be: what it has is what it takes.
                let path = path.to_owned();
                if let Ok(file) = blocking(move || std::fs::metadata(path)).await {
                    let written = file.blocks() * 512;
                    shared.written.store(written, Ordering::Relaxed);
                }
            }
        };
        let done = tokio::select! {
            done = writing => done,
            never = look => never,
        };
        shared.written.store(length, Ordering::Relaxed);
        done
    }

    fn began(&self) -> MutexGuard<'_, Vec<MintStep>> {
        let steps = self.shared.steps.lock();
        steps.unwrap_or_else(PoisonError::into_inner)
    }
}
