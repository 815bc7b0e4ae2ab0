//! Snapshots: taking one, and fitting one to a machine.
//!
//! A snapshot is a folder of three files: `config.json`, `state.json` and `memory-ranges`. The VMM opens the paths in
//! its `config.json` again at a restore, and checks nothing. So a machine restores from a folder of its own ([`folder`])
//! with a configuration that is built ([`description`]), the state as it was verified, edited where memory is mapped
//! ([`state`]), and the memory as [`GuestMemory`] says.

mod description;
mod folder;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod state;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::vm_config::{VmFiles, VmShape, vm_config};
use super::{Disk, Error, GuestMemory, Machine};
use crate::api;
use crate::api::types::{MemoryConfig, MemoryZoneConfig, VmConfig, VmSnapshotConfig};

pub(super) use folder::lay;
pub use state::{MemoryRegion, maps_memory};

use super::vm_config::VmDisk;
use description::Unexpected;

/// The files of a snapshot: the VM's configuration, the devices' state, the guest's memory.
pub const SNAPSHOT_FILES: [&str; 3] = [CONFIG, STATE, MEMORY];
const CONFIG: &str = "config.json";
const STATE: &str = "state.json";
const MEMORY: &str = "memory-ranges";

/// The most that is read of a `config.json`, which has a few KiB.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The most that is read of a `state.json`, which has some 20 KiB for each vCPU.
pub const MAX_STATE_BYTES: u64 = 16 << 20;

/// A snapshot that machines are reverted to. It holds the bytes of `config.json` and `state.json`, so that what was
/// verified is what is restored, whatever becomes of the files.
#[derive(Clone, Debug)]
pub struct Snapshot {
    folder: PathBuf,
    shape: VmShape,
    vsock_id: Option<String>,
    state: Vec<u8>,
    memory: GuestMemory,
    /// What the VMM has to map; empty where it copies.
    regions: Vec<MemoryRegion>,
}

/// The bytes of a snapshot's two small files.
#[derive(Clone, Debug)]
pub struct SnapshotBytes {
    /// `config.json`.
    pub config: Vec<u8>,
    /// `state.json`.
    pub state: Vec<u8>,
}

impl Snapshot {
    /// The snapshot in `folder`, whose VM has to be one that a machine with these disks boots of `shape`.
    ///
    /// Blocks: the chains of qcow2 images are looked up.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotConfig`] with the JSON pointer of a value in `config.json` that no mint leaves there;
    /// [`Error::Snapshot`] when it isn't JSON, or when `state.json` doesn't fit the memory that is to be mapped;
    /// [`Error::Disk`] for a chain that can't be used.
    pub fn new(
        folder: &Path,
        bytes: SnapshotBytes,
        shape: VmShape,
        disks: &[Disk],
        memory: GuestMemory,
    ) -> Result<Snapshot, Error> {
        let disks = disks.iter().map(vm_disk).collect::<Result<Vec<_>, _>>()?;
        let vsock_id = check_config(folder, &bytes.config, &shape, &disks)?;
        if let Some(length) = memory.length()
            && length != shape.memory_bytes()
        {
            return Err(Error::Snapshot {
                path: folder.join(MEMORY),
                reason: format!("it has {length} bytes, and the VM {}", shape.memory_bytes()),
            });
        }
        let (state, regions) = match &memory {
            GuestMemory::Mapped(file) => {
                let mapped = state::map_memory(&bytes.state, file.length());
                let mapped = mapped.map_err(|reason| Error::Snapshot {
                    path: folder.join(STATE),
                    reason,
                })?;
                (mapped.bytes, mapped.regions)
            }
            GuestMemory::Copied(_) | GuestMemory::ByPath => (bytes.state, Vec::new()),
        };
        Ok(Snapshot {
            folder: folder.to_owned(),
            shape,
            vsock_id,
            state,
            memory,
            regions,
        })
    }

    /// Reads the snapshot in `folder` as it is, for the machine that has just taken it.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and [`Error::File`] for a file that can't be read.
    pub fn read(folder: &Path, shape: VmShape, disks: &[Disk]) -> Result<Snapshot, Error> {
        let bytes = SnapshotBytes {
            config: read_bounded(&folder.join(CONFIG), MAX_CONFIG_BYTES)?,
            state: read_bounded(&folder.join(STATE), MAX_STATE_BYTES)?,
        };
        Snapshot::new(folder, bytes, shape, disks, GuestMemory::ByPath)
    }

    /// Whether the memory can be mapped: what a VMM would have to map.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] when `state.json` doesn't fit the VM's memory.
    pub fn check_mappable(&self) -> Result<Vec<MemoryRegion>, Error> {
        let mapped = state::map_memory(&self.state, self.shape.memory_bytes());
        let mapped = mapped.map_err(|reason| Error::Snapshot {
            path: self.folder.join(STATE),
            reason,
        })?;
        Ok(mapped.regions)
    }

    /// Where the guest's memory comes from.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// What a VMM maps of the memory file; empty where it copies.
    pub fn regions(&self) -> &[MemoryRegion] {
        &self.regions
    }

    /// The size of the VM.
    pub fn shape(&self) -> &VmShape {
        &self.shape
    }

    /// The configuration of a VM that is restored, whose memory the VMM finds at `memory_path` if it maps it.
    fn config(&self, files: &VmFiles, memory_path: Option<&str>) -> Result<VmConfig, Error> {
        let mut config = vm_config(&self.shape, files)?;
        if let Some(vsock) = &mut config.vsock {
            vsock.id.clone_from(&self.vsock_id);
        }
        if let (GuestMemory::Mapped(_), Some(path)) = (&self.memory, memory_path) {
            let zone = MemoryZoneConfig {
                file: Some(path.to_owned()),
                shared: Some(false),
                ..MemoryZoneConfig::new(state::ZONE, self.shape.memory_bytes())
            };
            config.memory = Some(MemoryConfig {
                zones: Some(vec![zone]),
                ..MemoryConfig::new(0)
            });
        }
        Ok(config)
    }
}

/// What the configuration says of a disk, with the path of its image.
fn vm_disk(disk: &Disk) -> Result<VmDisk, Error> {
    Ok(VmDisk {
        role: disk.role,
        readonly: disk.readonly,
        format: disk.format,
        has_backing: !disk.backing()?.is_empty(),
        path: String::new(),
    })
}

fn check_config(
    folder: &Path,
    config: &[u8],
    shape: &VmShape,
    disks: &[VmDisk],
) -> Result<Option<String>, Error> {
    let path = folder.join(CONFIG);
    let config = serde_json::from_slice(config).map_err(|error| Error::Snapshot {
        path: path.clone(),
        reason: format!("it is not JSON: {error}"),
    })?;
    match description::check(&config, shape, disks)? {
        Ok(kept) => Ok(kept.vsock_id),
        Err(Unexpected {
            pointer,
            expected,
            found,
        }) => Err(Error::SnapshotConfig {
            path,
            pointer,
            expected,
            found,
        }),
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::file("open", path))?;
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(Error::file("read", path))?;
    match bytes.len() as u64 > limit {
        true => Err(Error::Snapshot {
            path: path.to_owned(),
            reason: format!("it is larger than {limit} bytes"),
        }),
        false => Ok(bytes),
    }
}

impl Machine {
    /// Takes a snapshot of the paused VM into `into`, a folder that must exist and be empty. A snapshot holds
    /// no disk.
    ///
    /// # Errors
    ///
    /// [`Error::Api`], with kind `WrongState` when the VM isn't paused.
    pub async fn snapshot(&self, into: &Path) -> Result<(), Error> {
        let request = api::vm_snapshot(&VmSnapshotConfig::new(folder::url(into)?));
        self.call("take a snapshot", request).await
    }

    /// Keeps the present bytes of each writable disk of the paused VM under `into`, by the disk's role.
    ///
    /// # Errors
    ///
    /// [`Error::Disk`].
    pub async fn keep_disks(&self, into: &Path) -> Result<(), Error> {
        for disk in self.disks.iter().filter(|disk| !disk.given.readonly) {
            disk.keep(into.join(format!("{}.img", disk.role()))).await?;
        }
        Ok(())
    }

    /// From now on each writable disk is put back from the copies that `keep_disks` made in `golden`.
    pub fn adopt_disks(&mut self, golden: &Path) {
        let disks = self.disks.iter_mut().map(|disk| &mut disk.given);
        for disk in disks.filter(|disk| !disk.readonly) {
            disk.origin = golden.join(format!("{}.img", disk.role));
        }
    }
}
