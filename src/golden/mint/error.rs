//! [`MintError`]: why a golden snapshot couldn't be made.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::golden::{BaselineError, Error};
use crate::guest::BUILD_ID;
use crate::guest::protocol::ToolName;
use crate::machine::{self, DiskRole};
use crate::overlay::Digest;

use super::warm::WarmFailure;

/// Why a golden snapshot couldn't be made. The VMM was stopped and the folder removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// The folder can't be made, for instance because its parent folder doesn't exist.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why it can't be made.
        source: io::Error,
    },
    /// The path exists already, and is not a folder that a killed mint has left.
    #[error("{} exists already: name a folder that does not, or remove it first", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// Another process is minting into the folder.
    #[error("another process is minting into {}", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The VM didn't boot, or its guest didn't answer as it should.
    #[error("the VM did not boot")]
    Boot(#[source] machine::Error),
    /// The guest's dispatcher is of another build than this library. [`MintConfig::any_guest`] accepts it.
    ///
    /// [`MintConfig::any_guest`]: crate::golden::MintConfig::any_guest
    #[error(
        "the guest's dispatcher is build {guest}, this library is {}: pack the image again",
        BUILD_ID
    )]
    AnotherBuild {
        /// The build that the guest reports.
        guest: String,
    },
    /// The guest's count of open descriptors kept changing before the snapshot. [`MintConfig::settle`] gives it more
    /// time.
    ///
    /// [`MintConfig::settle`]: crate::golden::MintConfig::settle
    #[error(
        "the guest's count of open descriptors still changed after {} s, last to {last}: give it more time to settle",
        limit.as_secs()
    )]
    Restless {
        /// The time that the guest was given.
        limit: Duration,
        /// The guest's last count of open descriptors.
        last: u64,
    },
    /// The guest's greeting doesn't announce an extension of the protocol that warming needs.
    #[error(
        "the guest cannot be warmed, as its dispatcher lacks the extension {extension}: pack the image again"
    )]
    CannotWarm {
        /// The extension's name.
        extension: &'static str,
    },
    /// A tool that should warm the guest failed.
    #[error("warming the guest failed: the tool {tool} {failure}")]
    Warm {
        /// The tool.
        tool: ToolName,
        /// How it failed.
        failure: Box<WarmFailure>,
    },
    /// The guest gave no result of a tool that should warm it, or broke the protocol.
    #[error("warming the guest failed: the guest gave no result of the tool {tool}")]
    WarmUnanswered {
        /// The tool.
        tool: ToolName,
        /// Why there is no result.
        source: Box<machine::Error>,
    },
    /// The bytes of a disk changed while tools warmed the guest. Such a tool must leave nothing on a disk.
    #[error(
        "warming the guest changed its {role} disk: the digest was {before} before, and is {after} after"
    )]
    WarmLeft {
        /// Which disk.
        role: DiskRole,
        /// The disk's digest before the first tool.
        before: Digest,
        /// The disk's digest after the last tool.
        after: Digest,
    },
    /// The bytes of a disk kept changing before the guest was warmed, although no tool ran. [`MintConfig::settle`]
    /// gives it more time.
    ///
    /// [`MintConfig::settle`]: crate::golden::MintConfig::settle
    #[error(
        "the guest still wrote to its {role} disk after {} s: give it more time to settle",
        limit.as_secs()
    )]
    RestlessDisk {
        /// Which disk.
        role: DiskRole,
        /// The time that the guest was given.
        limit: Duration,
    },
    /// The VM couldn't be paused or snapshotted, or its disks couldn't be copied.
    #[error("the snapshot was not taken")]
    Snapshot(#[source] machine::Error),
    /// The VM couldn't be reverted to the new snapshot.
    #[error("the VM cannot be reverted to the new snapshot")]
    Revert(#[source] machine::Error),
    /// The readings after a revert can't serve as baselines.
    #[error("the readings after a revert cannot serve as baselines")]
    Baseline(#[source] BaselineError),
    /// A fact for the manifest can't be recorded: a file can't be digested, or a property of the VMM or host can't be
    /// read.
    #[error("a fact for the golden snapshot's manifest cannot be recorded")]
    Digest(#[source] Error),
    /// The manifest or its signature couldn't be written, or the finished golden snapshot couldn't be opened.
    #[error("the golden snapshot was not completed")]
    Manifest(#[source] Error),
}
