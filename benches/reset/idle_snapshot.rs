//! [`IdleSnapshot`]: a snapshot of an idle VM, with a chosen amount of data in its memory, and machines that restore
//! it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chv_sandbox::limits::TimeLimits;
use chv_sandbox::machine::{
    CopySource, Disk, DiskRole, GuestMemory, Machine, MachineConfig, RecordedDisk, RevertOptions,
    SNAPSHOT_FILES, Snapshot, SnapshotBytes, VmShape, VmmSource,
};
use chv_sandbox::overlay::{self, AccessPolicy, ImmutableFile};
use chv_sandbox::vmm::VmmConfig;

use super::{Outcome, disk, idle_vm, nested_state};

/// The length of the disk, which is mostly a hole.
const OVERLAY: u64 = 16 << 20;
const OVERLAY_DATA: usize = 1 << 20;

/// The offset of the data in the memory, which is above the memory of the tiny kernel.
const DATA_AT: u64 = 32 << 20;

pub(crate) struct IdleSnapshot {
    vmm: VmmConfig,
    shape: VmShape,
    disks: Vec<Disk>,
    folder: PathBuf,
    memory: Arc<ImmutableFile>,
    recorded: RecordedDisk,
}

impl IdleSnapshot {
    /// Takes a snapshot of a VM with this much memory, of which `data_mib` are not zeros.
    pub(crate) async fn take(
        vmm: &VmmConfig,
        folder: &Path,
        memory_mib: u64,
        data_mib: u64,
    ) -> Outcome<IdleSnapshot> {
        fs::create_dir_all(folder)?;
        let shape = VmShape {
            memory_mib,
            ..idle_vm::shape(folder)
        };
        let origin = noise(&folder.join("origin.img"))?;
        let recorded = RecordedDisk {
            role: DiskRole::Root,
            bytes: overlay::record(&origin, AccessPolicy::PreferMapped)?.digest,
            held: None,
        };
        let disks = vec![disk(DiskRole::Root, origin, false)];
        let mut machine = start(vmm, folder, &disks, GuestMemory::ByPath).await?;
        machine.boot_vm(&shape).await?;
        machine.pause().await?;
        let snapshot = folder.join("snapshot");
        fs::create_dir(&snapshot)?;
        machine.snapshot(&snapshot).await?;
        machine.shutdown().await;
        let [_, _, memory] = SNAPSHOT_FILES.map(|name| snapshot.join(name));
        let file = OpenOptions::new().write(true).open(&memory)?;
        let mib: Vec<u8> = (0..1 << 20)
            .map(|at: u32| (at / 255 + at) as u8 | 1)
            .collect();
        for at in 0..data_mib {
            file.write_all_at(&mib, DATA_AT + (at << 20))?;
        }
        drop(file);
        overlay::make_sparse(&memory)?;
        Ok(IdleSnapshot {
            vmm: vmm.clone(),
            shape,
            disks,
            memory: Arc::new(ImmutableFile::seal(&memory)?),
            folder: snapshot,
            recorded,
        })
    }

    /// The original of each VM's disk.
    pub(crate) fn origin(&self) -> &Path {
        &self.disks[0].origin
    }

    pub(crate) fn mapped(&self) -> GuestMemory {
        GuestMemory::Mapped(Arc::clone(&self.memory))
    }

    pub(crate) fn copied(&self) -> GuestMemory {
        GuestMemory::Copied(CopySource::Immutable(Arc::clone(&self.memory)))
    }

    /// A machine whose VMs have this memory, and the options for reverting it.
    pub(crate) async fn machine(&self, memory: GuestMemory) -> Outcome<(Machine, RevertOptions)> {
        let machine = start(&self.vmm, &self.folder, &self.disks, memory.clone()).await?;
        let [config, state, _] = SNAPSHOT_FILES.map(|name| fs::read(self.folder.join(name)));
        let bytes = SnapshotBytes {
            config: config?,
            state: state?,
        };
        let (folder, shape) = (&self.folder, self.shape.clone());
        let snapshot = Snapshot::new(folder, bytes, shape, &self.disks, memory)?;
        let mut options = RevertOptions::new(Arc::new(snapshot));
        options.disks = vec![self.recorded];
        Ok((machine, options))
    }
}

/// A VMM whose run root is below `folder`, with the environment that it needs to take snapshots on this machine.
pub(crate) async fn vmm_below(folder: &Path, binary: &Path) -> VmmConfig {
    VmmConfig {
        binary: binary.to_owned(),
        env: nested_state::environment(binary).await,
        run_root: folder.join("run"),
        ..VmmConfig::default()
    }
}

async fn start(
    vmm: &VmmConfig,
    folder: &Path,
    disks: &[Disk],
    memory: GuestMemory,
) -> Outcome<Machine> {
    let config = MachineConfig {
        vmm: VmmSource::Spawn(vmm.clone()),
        disks: disks.to_vec(),
        memory,
        port: 1024,
        files: idle_vm::files(folder),
        limits: TimeLimits::default(),
    };
    Ok(Machine::start(config).await?)
}

pub(crate) fn noise(path: &Path) -> Outcome<PathBuf> {
    let bytes: Vec<u8> = (0..OVERLAY_DATA).map(|at| (at / 255 + at) as u8).collect();
    let mut file = File::create(path)?;
    file.write_all(&bytes)?;
    file.set_len(OVERLAY)?;
    Ok(path.to_owned())
}
