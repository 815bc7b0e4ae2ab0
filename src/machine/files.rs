//! What a spawned VMM is given of the files of its host.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use super::readings::blocking;
use super::{Disk, DiskRole, Error, VmShape};
use crate::vmm::{Grants, beyond_streams};

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

/// What a VMM is given, and its names for the disks that it inherits.
pub(super) struct Given {
    pub(super) grants: Grants,
    /// The read-only disks. The VMM opens what was there when it started, whatever has the path since.
    pub(super) disks: Vec<(DiskRole, String)>,
}

/// What the VMM of a machine with these disks is given; `memory` is the file of its guest's memory, of which the VMM makes a
/// copy of `copied` bytes.
pub(super) async fn give(
    disks: Vec<Disk>,
    files: FurtherFiles,
    memory: Option<OwnedFd>,
    copied: u64,
) -> Result<Given, Error> {
    blocking(move || {
        let FurtherFiles {
            mut reads,
            writes,
            mut largest,
        } = files;
        // Some releases copy it into a file without a name.
        largest = largest.max(copied);
        let mut descriptors: Vec<OwnedFd> = memory.into_iter().collect();
        let mut inherited = Vec::new();
        for disk in disks {
            reads.extend(disk.backing()?.into_iter().map(|member| member.path));
            if !disk.readonly {
                largest = largest.max(disk.largest_file()?);
                continue;
            }
            let failed = || Error::file("open", disk.origin.as_path());
            let file = File::open(&disk.origin).map_err(failed())?;
            let file = beyond_streams(file).map_err(failed())?;
            inherited.push((disk.role, format!("/proc/self/fd/{}", file.as_raw_fd())));
            descriptors.push(file);
        }
        let grants = Grants {
            descriptors,
            reads,
            writes,
            // A VMM without a writable disk has small files alone to write; a limit of nothing would stop those.
            largest_file: Some(largest.max(SMALL)),
        };
        Ok(Given {
            grants,
            disks: inherited,
        })
    })
    .await
}

/// What a VMM may write in any case, in bytes.
const SMALL: u64 = 1 << 20;
