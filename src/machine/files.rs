//! What a spawned VMM is given of the files of its host.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use super::disk::{Inherited, WorkingDisk};
use super::{Disk, Error, VmShape};
use crate::offload::blocking;
use crate::vmm::{Grants, VmmConfig};

/// What a VMM may write in any case, in bytes. A VMM without a writable disk has small files alone to write; a limit of
/// nothing would stop those.
const SMALL: u64 = 1 << 20;

/// What a spawned VMM opens beside its disks, its sockets and the snapshots that it restores. Its boundary keeps it from
/// everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FurtherFiles {
    /// Files and folders that it reads.
    pub reads: Vec<PathBuf>,
    /// Folders in which it makes files.
    pub writes: Vec<PathBuf>,
    /// The length of the largest file that it makes there, in bytes.
    pub largest: u64,
}

impl FurtherFiles {
    /// What a cold boot needs: kernel and initramfs, and the guest's memory, for which v51.2 and v52.0 make a file without a
    /// name.
    pub fn of_boot(shape: &VmShape) -> Self {
        let initramfs = shape.initramfs.iter();
        FurtherFiles {
            reads: [&shape.kernel]
                .into_iter()
                .chain(initramfs)
                .cloned()
                .collect(),
            largest: shape.memory_bytes(),
            ..FurtherFiles::default()
        }
    }

    /// What a restore opens: the initramfs, which v51.2 to v53.0 open and don't read.
    pub fn of_restore(shape: &VmShape) -> Self {
        FurtherFiles {
            reads: shape.initramfs.iter().cloned().collect(),
            ..FurtherFiles::default()
        }
    }
}

/// What a VMM is given, and the machine's disks.
pub(super) struct Given {
    pub(super) grants: Grants,
    pub(super) disks: Vec<WorkingDisk>,
    /// The numbers of the descriptors that the VMM inherits.
    pub(super) inherited: Vec<u32>,
}

/// What a VMM with these disks is given; `memory` is the file of its guest's memory, of which the VMM makes a copy of
/// `copied` bytes.
pub(super) async fn give(
    vmm: &VmmConfig,
    disks: Vec<Disk>,
    files: FurtherFiles,
    memory: Option<OwnedFd>,
    copied: u64,
) -> Result<Given, Error> {
    let run_root = vmm.prepare_run_root().map_err(Error::Vmm)?;
    blocking(move || {
        let FurtherFiles {
            mut reads,
            writes,
            largest,
        } = files;
        // Some releases copy the memory into a file without a name.
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
        Ok(Given {
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
