//! Minting: [`mint`] creates a golden snapshot and records its baselines.
//!
//! ```text
//! boot -> imprint -> warm -> settle -> pause -> snapshot -> disks kept -> digests -> revert -> revert
//! ```
//!
//! - imprint: the guest is given a nonce, which it keeps in memory. It proves later that a guest was restored from this
//!   snapshot.
//! - warm: the configured tools run, if there are any ([`WarmTool`]). Every restored guest begins with the memory that
//!   they leave. They must leave nothing on the disks; the mint compares the disks' digests, and does not rely on the
//!   guest for that.
//! - settle: the mint waits until the guest's count of open descriptors stays the same.
//! - revert: the VM is reverted to the new snapshot, and its readings become the baselines. The second revert must give
//!   the same readings.

mod error;
mod progress;
mod warm;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, interval};
use uuid::Uuid;

pub use error::MintError;
pub use progress::{MintProgress, MintStep};
pub use warm::{WarmFailure, WarmTool};

use super::manifest::{FILE, FORMAT, write_private};
use super::unfinished::{self, UnfinishedGolden};
use super::{
    BaselineError, Baselines, CpuFacts, Error, ExecutableFacts, FileFacts, Golden, GoldenDisk,
    GuestFacts, Manifest, PayloadFacts, SNAPSHOT, ShapeFacts, SigningKey, SnapshotFacts,
    SnapshotFile, VmmFacts, signature,
};
use crate::causes::Causes;
use crate::files::create_private_directory;
use crate::guest::protocol::Extension;
use crate::machine::{
    self, Disk, Machine, MachineConfig, RevertOptions, SNAPSHOT_FILES, Snapshot, VmShape, VmmFiles,
};
use crate::offload::blocking;
use crate::overlay::{self, AccessPolicy, Digest, RecordedBytes, Threads};

/// The interval at which the guest is asked for its count of open descriptors.
const SETTLE_INTERVAL: Duration = Duration::from_millis(50);

/// How many equal counts in a row mean that the guest has settled.
const SETTLED_AFTER: u32 = 5;

/// The input of [`mint`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MintConfig {
    /// The VMM, the disks, the guest's vsock port and the time limits.
    pub machine: MachineConfig,
    /// The VM to boot: its kernel, size and vsock address.
    pub shape: VmShape,
    /// Whether to accept a guest whose dispatcher is of another build than this library. By default such a guest is
    /// refused, because an image with an old dispatcher is a common mistake, and the image still seems to work.
    pub any_guest: bool,
    /// Tools that run one after the other before the snapshot is taken. Each runs on a temporary layer that the guest
    /// then discards. The programs and files that they read are in the memory of every restored guest. The manifest
    /// records the tools with their parameters.
    pub warm: Vec<WarmTool>,
    /// How long the guest may take until its count of open descriptors stays the same, and, before it is warmed, until
    /// the bytes of its disks do. 10 s is ample.
    pub settle: Duration,
    /// The digest of the container image that the root disk was made from, if it was. It is recorded in the manifest,
    /// and so covered by the signature.
    pub container_image: Option<Digest>,
    /// The key that signs the manifest; `None` makes an unsigned golden snapshot.
    pub sign_with: Option<SigningKey>,
    /// The folder to make. It must not exist, unless a mint whose process was killed has left it. The mint writes the
    /// manifest as its last step; a folder without one is not a golden snapshot.
    pub into: PathBuf,
    /// Receives the progress of the mint. Keep a clone of it to read the progress from.
    pub progress: MintProgress,
}

/// Boots a VM, lets it settle, takes its snapshot together with its disks, and records the baselines. The baselines are
/// the readings of a revert to the new snapshot, which a second revert has to repeat.
///
/// # Errors
///
/// [`MintError`], by the step that failed. After an error, and also if the returned future is dropped, the VMM is
/// stopped and the folder is removed.
pub async fn mint(mut config: MintConfig) -> Result<Golden, MintError> {
    config.resolve_paths()?;
    let folder = UnfinishedGolden::create(&config.into)?;
    config.machine.files = VmmFiles {
        writes: vec![folder.path().to_owned()],
        ..VmmFiles::of_boot(&config.shape)
    };
    let machine = Machine::start(config.machine.clone()).await;
    let mut machine = machine.map_err(MintError::Boot)?;
    let minted = record(&mut machine, &config, folder.path()).await;
    let report = machine.shutdown().await;
    tracing::info!(?report, "the VMM of the mint has ended");
    let bytes = minted?.to_bytes();
    if let Some(key) = &config.sign_with {
        let signed = write_private(
            &folder.path().join(signature::FILE),
            key.sign(&bytes).as_bytes(),
        );
        signed.map_err(MintError::Manifest)?;
    }
    write_private(&folder.path().join(FILE), &bytes).map_err(MintError::Manifest)?;
    let golden = Golden::open(folder.path()).map_err(MintError::Manifest)?;
    folder.keep();
    Ok(golden)
}

impl MintConfig {
    /// A mint without warming, unsigned, of a guest of this build, that may take 10 s to settle.
    pub fn new(machine: MachineConfig, shape: VmShape, into: impl Into<PathBuf>) -> MintConfig {
        MintConfig {
            machine,
            shape,
            any_guest: false,
            warm: Vec::new(),
            settle: Duration::from_secs(10),
            container_image: None,
            sign_with: None,
            into: into.into(),
            progress: MintProgress::default(),
        }
    }

    /// Resolves symbolic links in the paths that the VMM records in its `config.json`. A restore compares those paths
    /// with the manifest's, which are resolved too.
    fn resolve_paths(&mut self) -> Result<(), MintError> {
        let payload = [Some(&mut self.shape.kernel), self.shape.initramfs.as_mut()];
        for path in payload.into_iter().flatten() {
            *path = absolute(path)?;
        }
        Ok(())
    }
}

async fn record(
    machine: &mut Machine,
    config: &MintConfig,
    folder: &Path,
) -> Result<Manifest, MintError> {
    let progress = &config.progress;
    progress.begin(MintStep::Boot);
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
    if let Some(nonce) = &nonce
        && !config.warm.is_empty()
    {
        warm::warm(machine, config, nonce).await?;
    } else if !config.warm.is_empty() {
        let extension = Extension::Nonce.name();
        return Err(MintError::CannotWarm { extension });
    }
    progress.begin(MintStep::Settle);
    wait_until_settled(machine, config.settle).await?;

    // An open connection would become part of the snapshot, and would be reset at each restore.
    machine.close_channel();
    machine.pause().await.map_err(MintError::Snapshot)?;
    let snapshot = folder.join(SNAPSHOT);
    create_private_directory(&snapshot).map_err(unfinished::failed(&snapshot))?;
    progress.begin(MintStep::Snapshot);
    let [_, _, memory] = SNAPSHOT_FILES.map(|name| snapshot.join(name));
    let taken = progress.watch_file(
        &memory,
        config.shape.memory_bytes(),
        machine.snapshot(&snapshot),
    );
    taken.await.map_err(MintError::Snapshot)?;
    progress.begin(MintStep::FreeZeros);
    free_zeros(&memory).await;
    progress.begin(MintStep::KeepDisks);
    // Pausing completes every write to the disks. But the VMM may keep the updated tables of a qcow2 image in its
    // memory until it closes the file, so the VM is deleted before the disks are copied.
    machine.delete().await.map_err(MintError::Revert)?;
    machine
        .keep_disks(folder)
        .await
        .map_err(MintError::Snapshot)?;
    machine.adopt_disks(folder);
    progress.begin(MintStep::Digest);
    let disks = digest_disks(&config.machine, folder).await?;
    let snapshot_files = digest_snapshot(&snapshot).await?;

    let options = {
        let (shape, disks) = (config.shape.clone(), machine.disks());
        let read = blocking(move || Snapshot::read(&snapshot, shape, &disks));
        RevertOptions::new(Arc::new(read.await.map_err(MintError::Revert)?))
    };
    let mut read_baselines = async || {
        let readings = machine.revert(&options).await.map_err(MintError::Revert)?;
        let read = Baselines::of(&readings, &disks, nonce.as_deref());
        read.map_err(MintError::Baseline)
    };
    progress.begin(MintStep::FirstRevert);
    let first = read_baselines().await?;
    progress.begin(MintStep::SecondRevert);
    let second = read_baselines().await?;
    if first != second {
        return Err(MintError::Baseline(BaselineError::Unstable {
            first: Box::new(first),
            second: Box::new(second),
        }));
    }
    let release = machine.release().await.map_err(MintError::Revert)?;
    Ok(Manifest {
        format: FORMAT,
        minted_at: Timestamp::now(),
        release: release.to_string(),
        vmm: vmm_facts(machine).await?,
        cpu: CpuFacts::of_this_host().map_err(MintError::Digest)?,
        payload: payload_facts(&config.shape).await?,
        container_image: config.container_image,
        shape: ShapeFacts {
            vcpus: config.shape.vcpus,
            memory_mib: config.shape.memory_mib,
            cid: config.shape.cid,
        },
        disks,
        snapshot: snapshot_files,
        guest: GuestFacts {
            port: config.machine.port,
            protocol: hello.as_ref().map(|hello| hello.protocol),
            build_id: hello.map(|hello| hello.build_id),
            nonce,
        },
        warmed_by: config.warm.clone(),
        baselines: first,
    })
}

/// Digests the kept copies of the writable disks, and the read-only disks in their places.
async fn digest_disks(
    machine: &MachineConfig,
    folder: &Path,
) -> Result<Vec<GoldenDisk>, MintError> {
    let mut disks = Vec::with_capacity(machine.disks.len());
    for disk in &machine.disks {
        let path = match disk.readonly {
            true => absolute(&disk.origin)?,
            false => format!("{}.img", disk.role).into(),
        };
        let recorded = digest(folder.join(&path)).await?;
        disks.push(GoldenDisk {
            role: disk.role,
            readonly: disk.readonly,
            format: disk.format,
            backing: digest_backing(disk).await?,
            path,
            length: recorded.length,
            sha256: recorded.sha256,
            fsverity: recorded.fsverity,
        });
    }
    Ok(disks)
}

/// Digests the backing files of a qcow2 image, in their places.
async fn digest_backing(disk: &Disk) -> Result<Vec<FileFacts>, MintError> {
    let mut files = Vec::new();
    for member in disk.backing().map_err(MintError::Snapshot)? {
        let path = absolute(&member.path)?;
        let recorded = digest(path.clone()).await?;
        files.push(FileFacts::new(path, &recorded));
    }
    Ok(files)
}

/// Turns the zeros in `memory-ranges` into holes, which leave less to read when the snapshot is loaded or restored: the
/// VMM writes all of the memory, the zeros too. A failure changes no byte of the file, so it is only logged.
async fn free_zeros(memory: &Path) {
    let memory = memory.to_owned();
    match blocking(move || overlay::make_sparse(&memory)).await {
        Ok(freed) => tracing::info!(
            freed,
            "freed the zeros of the snapshot's memory on the disk"
        ),
        Err(error) => {
            tracing::warn!(error = %Causes(&error), "cannot free the zeros of the snapshot's memory on the disk");
        }
    }
}

async fn digest_snapshot(folder: &Path) -> Result<SnapshotFacts, MintError> {
    let file = async |name| {
        let path = folder.join(name);
        let hashed = blocking(move || {
            overlay::fsverity(&path, AccessPolicy::PreferMapped, Threads::default())
        });
        let hashed = hashed.await.map_err(Error::Digest);
        let hashed = hashed.map_err(MintError::Digest)?;
        Ok(SnapshotFile {
            length: hashed.length,
            fsverity: hashed.digest,
        })
    };
    let [config, state, memory_ranges] = SNAPSHOT_FILES;
    Ok(SnapshotFacts {
        config: file(config).await?,
        state: file(state).await?,
        memory_ranges: file(memory_ranges).await?,
    })
}

async fn vmm_facts(machine: &Machine) -> Result<VmmFacts, MintError> {
    let executable = match machine.vmm().process() {
        Some(process) => {
            let facts = ExecutableFacts::of_process(process).await;
            Some(facts.map_err(MintError::Digest)?)
        }
        None => None,
    };
    let ping = machine.client().vmm_ping().await;
    let ping = ping.map_err(|source| {
        let action = "report its build";
        MintError::Revert(machine::Error::Api { action, source })
    })?;
    Ok(VmmFacts {
        build_version: ping.build_version,
        executable,
    })
}

async fn payload_facts(shape: &VmShape) -> Result<PayloadFacts, MintError> {
    let file = async |path: &Path| {
        let path = absolute(path)?;
        let recorded = digest(path.clone()).await?;
        Ok::<_, MintError>(FileFacts::new(path, &recorded))
    };
    Ok(PayloadFacts {
        kernel: file(&shape.kernel).await?,
        initramfs: match &shape.initramfs {
            Some(path) => Some(file(path).await?),
            None => None,
        },
        cmdline: shape.cmdline.clone(),
    })
}

async fn digest(path: PathBuf) -> Result<RecordedBytes, MintError> {
    let proof = blocking(move || overlay::record(&path, AccessPolicy::PreferMapped)).await;
    let proof = proof.map_err(|error| MintError::Digest(Error::Digest(error)))?;
    Ok(proof.digest)
}

fn absolute(path: &Path) -> Result<PathBuf, MintError> {
    // Symbolic links are resolved, so that the recorded path leads to the very file that is digested.
    std::fs::canonicalize(path).map_err(|source| {
        let path = path.to_owned();
        MintError::Digest(Error::Missing { path, source })
    })
}

/// Waits until the guest has given the same count of open descriptors [`SETTLED_AFTER`] times in a row.
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
