//! Minting: the one moment at which it is decided what clean means.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, interval};
use uuid::Uuid;

use super::manifest::FILE;
use super::{BaselineError, Baselines, Error, Golden, GoldenDisk, GuestFacts, Manifest, SNAPSHOT};
use crate::guest::BUILD_ID;
use crate::guest::protocol::Extension;
use crate::machine::{self, Machine, MachineConfig, VmShape};

/// How often the guest is asked whether it has settled.
const SETTLE_INTERVAL: Duration = Duration::from_millis(50);

/// How many equal answers in a row mean that it has.
const SETTLED_AFTER: u32 = 5;

/// What to mint, and where.
#[derive(Clone, Debug)]
pub struct MintConfig {
    /// The VMM, the disks, the guest's port and the limits.
    pub machine: MachineConfig,
    /// The VM.
    pub shape: VmShape,
    /// Takes a guest whose dispatcher is of another build than this library. A stale image is a common mistake,
    /// and looks like a working one.
    pub any_guest: bool,
    /// How long the guest may take to come to rest after its boot. 10 s is ample.
    pub settle: Duration,
    /// The folder to make. It must not exist. Until its manifest is written, as the last step, it is no golden
    /// snapshot.
    pub into: PathBuf,
}

/// A golden snapshot couldn't be made. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// The folder exists, or can't be made.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
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
    /// The snapshot couldn't be taken, or the disks not kept.
    #[error("the snapshot was not taken")]
    Snapshot(#[source] machine::Error),
    /// The VM couldn't be reverted to the fresh snapshot.
    #[error("the fresh snapshot cannot be reverted to")]
    Revert(#[source] machine::Error),
    /// The readings after a revert can't serve as baselines.
    #[error("the readings after a revert cannot serve as baselines")]
    Baseline(#[source] BaselineError),
    /// The manifest couldn't be written.
    #[error("the golden snapshot was not completed")]
    Manifest(#[source] Error),
}

/// Boots a VM, lets it settle, takes its snapshot with its disks, and records the baselines: the readings of
/// a revert to that very snapshot, which a second revert has to repeat.
///
/// # Errors
///
/// [`MintError`] by the stage that failed. The VMM is stopped, and the folder isn't there, in each case.
pub async fn mint(config: MintConfig) -> Result<Golden, MintError> {
    let folder = Folder::create(&config.into)?;
    let machine = Machine::start(config.machine.clone()).await;
    let mut machine = machine.map_err(MintError::Boot)?;
    let minted = record(&mut machine, &config, &folder.path).await;
    let report = machine.shutdown().await;
    tracing::info!(?report, "the VMM of the mint has ended");
    let written = minted?.write(&folder.path.join(FILE));
    written.map_err(MintError::Manifest)?;
    let golden = Golden::open(&folder.path).map_err(MintError::Manifest)?;
    folder.keep();
    Ok(golden)
}

async fn record(
    machine: &mut Machine,
    config: &MintConfig,
    folder: &Path,
) -> Result<Manifest, MintError> {
    let hello = machine.boot(&config.shape).await.map_err(MintError::Boot)?;
    if let Some(hello) = &hello
        && !hello.is_same_build()
        && !config.any_guest
    {
        let guest = hello.build_id.clone();
        return Err(MintError::AnotherBuild { guest });
    }
    let nonce = match &hello {
        Some(hello) if hello.supports(Extension::Nonce) => {
            let nonce = Uuid::new_v4().to_string();
            machine.imprint(&nonce).await.map_err(MintError::Boot)?;
            Some(nonce)
        }
        _ => None,
    };
    wait_until_settled(machine, config.settle).await?;

    // A connection would be part of the snapshot, and dies at each restore.
    machine.close_channel();
    machine.pause().await.map_err(MintError::Snapshot)?;
    let snapshot = folder.join(SNAPSHOT);
    create_private(&snapshot)?;
    let taken = machine.snapshot(&snapshot).await;
    taken.map_err(MintError::Snapshot)?;
    let disks = keep_disks(machine, folder).await?;

    let mut read_baselines = async || {
        let readings = machine.revert(&snapshot).await.map_err(MintError::Revert)?;
        let read = Baselines::of(&readings, &disks, nonce.as_deref());
        read.map_err(MintError::Baseline)
    };
    let first = read_baselines().await?;
    let second = read_baselines().await?;
    if first != second {
        return Err(MintError::Baseline(BaselineError::Unstable {
            first: Box::new(first),
            second: Box::new(second),
        }));
    }
    let release = machine.release().await.map_err(MintError::Revert)?;
    let guest = GuestFacts {
        port: config.machine.port,
        build_id: hello.map(|hello| hello.build_id),
        nonce,
    };
    Ok(Manifest::new(release.to_string(), disks, guest, first))
}

/// Keeps and digests the disks as they were while the VM was paused, and makes the kept copies the origin of later reverts.
async fn keep_disks(machine: &mut Machine, folder: &Path) -> Result<Vec<GoldenDisk>, MintError> {
    // Nothing has run since the pause. Pausing completes every write, but the tables of a qcow2 image that go with
    // them may be in the VMM's memory until it closes the file.
    machine.delete().await.map_err(MintError::Revert)?;
    machine
        .keep_disks(folder)
        .await
        .map_err(MintError::Snapshot)?;
    machine.adopt_disks(folder);
    let origins = machine.hash_origins().await.map_err(MintError::Snapshot)?;
    let disks = origins.into_iter().map(|(disk, hashed)| GoldenDisk {
        role: disk.role,
        readonly: disk.readonly,
        path: match disk.readonly {
            true => disk.origin,
            false => format!("{}.img", disk.role).into(),
        },
        length: hashed.length,
        sha256: hashed.digest,
    });
    Ok(disks.collect())
}

/// Waits until the guest's descriptors have stayed the same for a while.
async fn wait_until_settled(machine: &Machine, limit: Duration) -> Result<(), MintError> {
    let deadline = Instant::now() + limit;
    let mut ticks = interval(SETTLE_INTERVAL);
    let (mut last, mut equal) = (0, 0);
    while equal < SETTLED_AFTER {
        ticks.tick().await;
        let count = machine.open_fd_count().await.map_err(MintError::Boot)?;
        equal = if count == last { equal + 1 } else { 1 };
        last = count;
        if Instant::now() > deadline && equal < SETTLED_AFTER {
            return Err(MintError::Restless { limit, last });
        }
    }
    Ok(())
}

/// The folder while it is being made. Dropped, it is gone.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn create(path: &Path) -> Result<Self, MintError> {
        let path = std::path::absolute(path).map_err(|source| MintError::Folder {
            path: path.to_owned(),
            source,
        })?;
        create_private(&path)?;
        Ok(Folder { path, keep: false })
    }

    fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished golden snapshot stays");
        }
    }
}

fn create_private(path: &Path) -> Result<(), MintError> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| MintError::Folder {
        path: path.to_owned(),
        source,
    })
}
