//! Why no golden snapshot could be made.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::golden::{BaselineError, Error};
use crate::guest::BUILD_ID;
use crate::guest::protocol::ToolName;
use crate::machine::{self, DiskRole};
use crate::overlay::Digest;

use super::warm::WarmFailure;

/// A golden snapshot couldn't be made. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// The folder can't be made, for instance because its parent isn't there.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something is there already that no mint left unfinished.
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
    /// The VM didn't boot.
    #[error("the VM did not boot")]
    Boot(#[source] machine::Error),
    /// The guest's dispatcher was built from other sources than this library.
    #[error(
        "the guest's dispatcher is build {guest}, this library is {}: pack the image again",
        BUILD_ID
    )]
    AnotherBuild {
        /// The build that the guest says it is.
        guest: String,
    },
    /// The guest's descriptors kept changing.
    #[error("the guest did not come to rest within {} s; its descriptors still changed, lastly to {last}", limit.as_secs())]
    Restless {
        /// How long it had.
        limit: Duration,
        /// Its last count.
        last: u64,
    },
    /// The guest can't run a tool without a trace: its hello doesn't list this extension.
    #[error(
        "the guest cannot be warmed: it does not have the extension {extension}; pack the image again"
    )]
    CannotWarm {
        /// The extension.
        extension: &'static str,
    },
    /// A tool that was to warm the guest did not succeed.
    #[error("the tool {tool} that was to warm the guest {failure}")]
    Warm {
        /// The tool.
        tool: ToolName,
        /// What came of it.
        failure: Box<WarmFailure>,
    },
    /// The guest didn't say what came of a tool that was to warm it, or not as it should.
    #[error("the tool {tool} that was to warm the guest came to no end")]
    WarmUnanswered {
        /// The tool.
        tool: ToolName,
        /// Why not.
        source: Box<machine::Error>,
    },
    /// The bytes of a disk changed while tools warmed the guest. The run of a tool has to leave none behind.
    #[error("the {role} disk was {before} before the guest was warmed, and is {after} now")]
    WarmLeft {
        /// Which disk.
        role: DiskRole,
        /// Its digest before.
        before: Digest,
        /// Its digest after.
        after: Digest,
    },
    /// The bytes of a disk kept changing before the guest was warmed, though no tool ran.
    #[error("the {role} disk did not come to rest within {} s", limit.as_secs())]
    RestlessDisk {
        /// Which disk.
        role: DiskRole,
        /// How long it had.
        limit: Duration,
    },
    /// The snapshot couldn't be taken, or the disks not kept.
    #[error("the snapshot was not taken")]
    Snapshot(#[source] machine::Error),
    /// The VM couldn't be reverted to the fresh snapshot.
    #[error("the fresh snapshot cannot be reverted to")]
    Revert(#[source] machine::Error),
    /// The readings after a revert can't serve as baselines.
    #[error("the readings after a revert cannot serve as baselines")]
    Baseline(#[source] BaselineError),
    /// What was minted couldn't be digested, so that a later change of it couldn't be noticed.
    #[error("what was minted cannot be digested")]
    Digest(#[source] Error),
    /// The manifest couldn't be written.
    #[error("the golden snapshot was not completed")]
    Manifest(#[source] Error),
}
