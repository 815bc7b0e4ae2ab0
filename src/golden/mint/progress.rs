//! [`MintProgress`]: the steps of a mint that have begun, for a caller that shows them.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::guest::protocol::ToolName;
use crate::mutex::lock;
use crate::offload::blocking;

/// The interval at which the size of the file that the VMM writes is read.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A step of a mint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MintStep {
    /// The VM boots, and its guest answers.
    Boot,
    /// A tool warms the guest.
    Warm {
        /// The tool.
        tool: ToolName,
        /// The tool's position among the tools that warm the guest, counted from 1.
        number: usize,
        /// The number of tools that warm the guest.
        of: usize,
    },
    /// The mint waits until the guest's count of open descriptors stays the same.
    Settle,
    /// The VMM writes the snapshot with the guest's memory.
    Snapshot,
    /// The zeros in the memory file become holes.
    FreeZeros,
    /// The writable disks are copied into the golden snapshot.
    KeepDisks,
    /// Disks and snapshot files are digested.
    Digest,
    /// The VM is reverted to the snapshot, and its readings are taken as baselines.
    FirstRevert,
    /// The VM is reverted to the snapshot once more. Its readings must equal the baselines.
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

/// The progress of a mint. All clones show the same mint.
///
/// ```
/// use chv_sandbox::golden::{MintProgress, MintStep};
///
/// let progress = MintProgress::default();
/// // Give a clone to the mint as `MintConfig::progress`, and read this one while the mint runs.
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
    /// The steps that have begun, in order. The last one is still running, unless the mint has ended.
    pub fn steps(&self) -> Vec<MintStep> {
        self.began().clone()
    }

    /// The step that began last; `None` before the first one.
    pub fn step(&self) -> Option<MintStep> {
        self.began().last().cloned()
    }

    /// How many bytes of the guest's memory the VMM has written, and how many it has to write. Both are 0 before
    /// [`MintStep::Snapshot`].
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

    /// Awaits `writing`, which writes `length` bytes to the file `path`, and meanwhile records how many are written.
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
                // The file may not exist yet. Its length may be the final one from the start, so the allocated blocks
                // are counted.
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
        lock(&self.shared.steps)
    }
}
