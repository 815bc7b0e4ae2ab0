//! The two disks of an image.

use std::{fs::File, path::Path};

use super::{
    Error,
    inodes::{self, Modified},
    input::MIB,
    mke2fs::{Filesystem, Mke2fs},
    stop::Stop,
    tree::{self, Extent},
};

/// The ids of the two file systems: fixed, and not the same, since overlayfs does less for layers that it can't tell
/// apart.
const ROOT_UUID: &str = "0f6f3c5e-7a1b-4a53-b6a4-2f1a3c9d7e10";
const OVERLAY_UUID: &str = "d2a8b7c4-3e5f-4d16-8c9b-51e07f6a2b43";

/// What every group of blocks costs beside contents, and the file system itself, with room to spare.
const ROOT_RESERVE_MIB: u64 = 2;
const INODE_LEN: u64 = 256;
/// Inodes that a file system keeps for itself, and `lost+found`.
const RESERVED_INODES: u64 = 16;

/// How the disks are made.
pub(super) struct DiskMaker<'a> {
    pub(super) mke2fs: &'a Mke2fs,
    /// A directory for trees and messages, removed by the caller.
    pub(super) scratch: &'a Path,
    pub(super) stop: Stop<'a>,
}

impl DiskMaker<'_> {
    /// Writes a tree to the root disk, which has `size_mib`, or as much as the tree needs.
    pub(super) fn root(
        &self,
        file: &File,
        image: &Path,
        tree: &Path,
        modified: Modified,
        size_mib: Option<u64>,
    ) -> Result<(), Error> {
        let extent = tree::measure(tree)?;
        let size_mib = size_mib.unwrap_or_else(|| root_size_mib(extent));
        let inodes = extent.entries + RESERVED_INODES;
        self.make(
            file,
            &Filesystem {
                image,
                tree,
                uuid: ROOT_UUID,
                size_mib,
                inodes,
            },
            modified,
        )
    }

    /// Makes an empty overlay disk.
    pub(super) fn overlay(&self, file: &File, image: &Path, size_mib: u64) -> Result<(), Error> {
        let tree = self.scratch.join("overlay");
        tree::make_overlay(&tree)?;
        // One inode for every 16 KiB, as is usual.
        let inodes = size_mib * 64;
        self.make(
            file,
            &Filesystem {
                image,
                tree: &tree,
                uuid: OVERLAY_UUID,
                size_mib,
                inodes,
            },
            Modified::Fix,
        )
    }

    fn make(
        &self,
        file: &File,
        filesystem: &Filesystem<'_>,
        modified: Modified,
    ) -> Result<(), Error> {
        let path = filesystem.image;
        file.set_len(filesystem.size_mib * MIB)
            .map_err(Error::io("size", path))?;
        self.mke2fs.run(filesystem, self.scratch, self.stop)?;
        inodes::settle(file, path, rustix::process::geteuid().as_raw(), modified)
    }
}

/// What a tree needs: its contents, its inodes, an eighth for block maps and directories, the reserve.
fn root_size_mib(extent: Extent) -> u64 {
    let bytes = extent.bytes + extent.entries * INODE_LEN;
    (bytes + bytes / 8).div_ceil(MIB) + ROOT_RESERVE_MIB
}
