//! The files of the host that a spawned VMM may use: [`VmmFiles`] that it opens by path, and the descriptors that
//! it inherits.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use super::disk::{Inherited, WorkingDisk};
use super::{Disk, Error, VmShape};
use crate::offload::blocking;
use crate::vmm::{Grants, VmmConfig};

/// The least limit on the size of a file that a VMM may write, in bytes. A VMM without a writable disk still writes
/// small files, which a limit of 0 would stop.
const SMALL: u64 = 1 << 20;

/// The files that a spawned VMM opens in addition to its disks, its sockets and the snapshots that it restores. The
/// VMM's confinement keeps it from opening any other file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmmFiles {
    /// The files and folders that the VMM reads.
    pub reads: Vec<PathBuf>,
    /// The folders in which the VMM makes files.
    pub writes: Vec<PathBuf>,
    /// The length in bytes of the largest file that the VMM makes.
    pub largest: u64,
}

impl VmmFiles {
    /// The files that a cold boot needs: the kernel and the initramfs. `largest` is the size of the guest's memory, for
    /// which v51.2 and v52.0 make a file without a name.
    pub(crate) fn of_boot(shape: &VmShape) -> Self {
        let initramfs = shape.initramfs.iter();
        VmmFiles {
            reads: [&shape.kernel]
                .into_iter()
                .chain(initramfs)
                .cloned()
                .collect(),
            largest: shape.memory_bytes(),
            ..VmmFiles::default()
        }
    }

    /// The files that a restore opens: the initramfs, which v51.2 to v53.0 open but do not read.
    pub fn of_restore(shape: &VmShape) -> Self {
        VmmFiles {
            reads: shape.initramfs.iter().cloned().collect(),
            ..VmmFiles::default()
        }
    }
}

/// The files that a VMM is given, and the machine's disks that were made from them.
pub(super) struct PreparedFiles {
    pub(super) grants: Grants,
    pub(super) disks: Vec<WorkingDisk>,
    /// The numbers of the descriptors that the VMM inherits.
    pub(super) inherited: Vec<u32>,
}

/// Opens the files that a VMM with these disks is given. `memory` is the file of its guest's memory. If the VMM copies
/// it, `copied` is its length in bytes, else 0.
pub(super) async fn give(
    vmm: &VmmConfig,
    disks: Vec<Disk>,
    files: VmmFiles,
    memory: Option<OwnedFd>,
    copied: u64,
) -> Result<PreparedFiles, Error> {
    let run_root = vmm.prepare_run_root().map_err(Error::Vmm)?;
    blocking(move || {
        let VmmFiles {
            mut reads,
            writes,
            largest,
        } = files;
        // Some releases copy the memory into a file without a name, so the limit on a file's size must allow that.
        let mut largest = largest.max(copied).max(SMALL);
        let mut descriptors: Vec<OwnedFd> = memory.into_iter().collect();
        let mut working = Vec::with_capacity(disks.len());
        for disk in disks {
            let Inherited {
                disk,
                descriptor,
                largest: of_disk,
            } = WorkingDisk::inherited(disk, &run_root)?;
            reads.extend(disk.backing.iter().map(|member| member.path.clone()));
            largest = largest.max(of_disk);
            descriptors.push(descriptor);
            working.push(disk);
        }
        let numbers = descriptors.iter().map(|it| it.as_raw_fd().cast_unsigned());
        Ok(PreparedFiles {
            inherited: numbers.collect(),
            disks: working,
            grants: Grants {
                descriptors,
                reads,
                writes,
                largest_file: Some(largest),
            },
        })
    })
    .await
}
