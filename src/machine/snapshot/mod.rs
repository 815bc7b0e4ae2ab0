//! [`Snapshot`]: a snapshot that machines are reverted to. [`Machine::snapshot`] takes one.
//!
//! A snapshot is a folder of three files: `config.json`, `state.json` and `memory-ranges`. At a restore the VMM opens
//! the paths in `config.json` and checks none of them. So a machine restores from its own folder ([`folder`]). That
//! folder has a configuration that the machine builds ([`description`]), the verified state, which is edited if memory
//! is mapped ([`state`]), and the memory as [`GuestMemory`] says.

mod config_check;
mod folder;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod map_memory;

use std::path::{Path, PathBuf};

use super::vm_config::{VmFiles, VmShape, vm_config};
use super::{Disk, Error, GuestMemory, Machine};
use crate::api;
use crate::api::types::{MemoryConfig, MemoryZoneConfig, VmConfig, VmSnapshotConfig};
use crate::files::{self, ReadError, Symlinks};

pub(super) use folder::write_folder;
pub use map_memory::MemoryRegion;
pub(crate) use map_memory::maps_memory;

use super::vm_config::VmDisk;
use config_check::Unexpected;

/// The names of a snapshot's files: the VM's configuration, the state of devices and vCPUs, the guest's memory.
pub const SNAPSHOT_FILES: [&str; 3] = [CONFIG, STATE, MEMORY];
const CONFIG: &str = "config.json";
const STATE: &str = "state.json";
const MEMORY: &str = "memory-ranges";

/// The largest `config.json` that is read, in bytes. It usually has a few KiB.
pub(crate) const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The largest `state.json` that is read, in bytes. It has about 20 KiB for each vCPU.
pub(crate) const MAX_STATE_BYTES: u64 = 16 << 20;

/// A snapshot that machines are reverted to. It keeps the verified content of `config.json` and `state.json` in memory,
/// so a later change of these files has no effect.
#[derive(Clone, Debug)]
pub struct Snapshot {
    folder: PathBuf,
    shape: VmShape,
    vsock_id: Option<String>,
    state: Vec<u8>,
    memory: GuestMemory,
    /// The regions that the VMM must map; empty if it copies the memory.
    regions: Vec<MemoryRegion>,
}

/// The contents of a snapshot's two small files.
#[derive(Clone, Debug)]
pub struct SnapshotBytes {
    /// The content of `config.json`.
    pub config: Vec<u8>,
    /// The content of `state.json`.
    pub state: Vec<u8>,
}

impl Snapshot {
    /// Makes a snapshot of the files in `folder`, of which `bytes` has two. Its VM must be the one that a machine with
    /// these disks boots from `shape`.
    ///
    /// Blocks, because it reads the chains of qcow2 images.
    ///
    /// # Errors
    ///
    /// - [`Error::SnapshotConfig`]: `config.json` has a value that no mint writes, with its JSON pointer.
    /// - [`Error::Snapshot`]: `config.json` isn't JSON, the memory file doesn't have the VM's size, or `state.json`
    ///   doesn't fit the memory that should be mapped.
    /// - [`Error::Disk`]: the chain of a qcow2 image can't be used.
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
                reason: format!(
                    "it has {length} bytes, and the VM's memory has {}",
                    shape.memory_bytes()
                ),
            });
        }
        let (state, regions) = match &memory {
            GuestMemory::Mapped(file) => {
                let mapped = map_memory::map_memory(&bytes.state, file.length());
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

    /// Reads the snapshot in `folder` without comparing digests, for the machine that has just taken it. Its memory is
    /// read by path. Blocks.
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

    /// Checks that the memory can be mapped, and returns the regions that a VMM would have to map.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] if `state.json` doesn't fit the VM's memory.
    pub(crate) fn check_mappable(&self) -> Result<Vec<MemoryRegion>, Error> {
        let mapped = map_memory::map_memory(&self.state, self.shape.memory_bytes());
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

    /// The regions of the memory file that a VMM maps; empty if it copies the memory.
    pub fn regions(&self) -> &[MemoryRegion] {
        &self.regions
    }

    /// The shape of the VM: its kernel, size and vsock address.
    pub fn shape(&self) -> &VmShape {
        &self.shape
    }

    /// Builds the configuration of a VM that is restored. `memory_path` is the path by which the VMM opens the memory
    /// file that it maps.
    fn config(&self, files: &VmFiles, memory_path: Option<&str>) -> Result<VmConfig, Error> {
        let mut config = vm_config(&self.shape, files)?;
        if let Some(vsock) = &mut config.vsock {
            vsock.id.clone_from(&self.vsock_id);
        }
        if let (GuestMemory::Mapped(_), Some(path)) = (&self.memory, memory_path) {
            let zone = MemoryZoneConfig {
                file: Some(path.to_owned()),
                shared: Some(false),
                ..MemoryZoneConfig::new(map_memory::ZONE, self.shape.memory_bytes())
            };
            config.memory = Some(MemoryConfig {
                zones: Some(vec![zone]),
                ..MemoryConfig::new(0)
            });
        }
        Ok(config)
    }
}

/// Describes a disk as the configuration does, with an empty path, since the check of a `config.json` ignores paths.
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
    match config_check::check(&config, shape, disks)? {
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

/// Reads a file that a VMM wrote. Only a file is read: a link that the VMM put in its place could lead anywhere.
fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    files::read_bounded(path, limit, Symlinks::Refuse).map_err(|error| match error {
        ReadError::Failed { operation, source } => Error::file(operation, path)(source),
        refused => Error::Snapshot {
            path: path.to_owned(),
            reason: refused.to_string(),
        },
    })
}

impl Machine {
    /// Takes a snapshot of the VM into `into`, a folder that must exist and be empty. Legal while the VM is paused. A
    /// snapshot does not contain the disks: see [`keep_disks`](Self::keep_disks).
    ///
    /// # Errors
    ///
    /// [`Error::Api`], with the kind `WrongState` if the VM isn't paused; [`Error::VmmDied`] if the VMM's process
    /// ended; [`Error::NotUtf8`] if the path of the folder isn't UTF-8.
    pub async fn snapshot(&self, into: &Path) -> Result<(), Error> {
        let request = api::vm_snapshot(&VmSnapshotConfig::new(folder::url(into)?));
        self.call("take a snapshot", request).await
    }

    /// Copies each writable disk to a new file in the folder `into`, named by the disk's role: `root.img` or
    /// `overlay.img`. Legal while the VM is paused or deleted.
    ///
    /// # Errors
    ///
    /// [`Error::Disk`] if a disk can't be copied; [`Error::File`] if it can't be opened.
    pub async fn keep_disks(&self, into: &Path) -> Result<(), Error> {
        for disk in self.disks.iter().filter(|disk| !disk.given.readonly) {
            disk.keep(into.join(format!("{}.img", disk.role()))).await?;
        }
        Ok(())
    }

    /// Makes the copies in the folder `golden`, which [`keep_disks`](Self::keep_disks) made, the origins of the
    /// writable disks. The next boot or revert fills the disks from them.
    pub(crate) fn adopt_disks(&mut self, golden: &Path) {
        let disks = self.disks.iter_mut().map(|disk| &mut disk.given);
        for disk in disks.filter(|disk| !disk.readonly) {
            disk.origin = golden.join(format!("{}.img", disk.role));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_a_file_of_a_vmm_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("secret"), "of the host").unwrap();
        assert_eq!(read_bounded(&path("secret"), 11).unwrap(), b"of the host");
        symlink("secret", path("link")).unwrap();
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        for (name, limit) in [("link", 11), ("pipe", 11), ("", 11), ("secret", 10)] {
            read_bounded(&path(name), limit).unwrap_err();
        }
    }
}
