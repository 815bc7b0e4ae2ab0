//! [`DiskMaker`]: makes the two disks of an image.

use std::{fs::File, ops::RangeInclusive, path::Path};

use super::{
    Error,
    e2fsck::E2fsck,
    inodes::{self, Modified},
    input::MIB,
    mke2fs::{Filesystem, Mke2fs},
    stop::Stop,
    survey, tree,
};

/// The UUIDs of the two filesystems. They are fixed, and they differ, because overlayfs disables features for layers
/// with the same UUID.
pub(super) const ROOT_UUID: &str = "0f6f3c5e-7a1b-4a53-b6a4-2f1a3c9d7e10";
const OVERLAY_UUID: &str = "d2a8b7c4-3e5f-4d16-8c9b-51e07f6a2b43";

/// The smallest and the largest disk, in MiB.
pub(super) const DISK_MIB: RangeInclusive<u64> = 4..=1024 * 1024;

/// The programs and the scratch directory for making the disks.
pub(super) struct DiskMaker<'a> {
    pub(super) mke2fs: &'a Mke2fs,
    /// Checks the root disk. Without it the root disk isn't checked.
    pub(super) e2fsck: Option<E2fsck>,
    /// A directory for trees and messages, removed by the caller.
    pub(super) scratch: &'a Path,
    pub(super) stop: Stop<'a>,
}

impl DiskMaker<'_> {
    /// Writes a tree to the root disk and checks the disk. Its size is `size_mib`, or as much as the tree needs.
    pub(super) fn root(
        &self,
        file: &File,
        image: &Path,
        tree: &Path,
        modified: Modified,
        size_mib: Option<u64>,
    ) -> Result<(), Error> {
        let needs = survey::survey(tree, self.stop)?;
        let needed_mib = needs.disk_mib().max(*DISK_MIB.start());
        let size_mib = size_mib.unwrap_or(needed_mib);
        let filesystem = Filesystem {
            image,
            tree,
            uuid: ROOT_UUID,
            size_mib,
            inodes: needs.all_inodes(),
        };
        match self.make(file, &filesystem, modified) {
            Err(failed @ Error::Mke2fsFailed { .. }) if size_mib < needed_mib => {
                return Err(Error::RootTooSmall {
                    size_mib,
                    needed_mib,
                    source: Box::new(failed),
                });
            }
            made => made?,
        }
        self.check(image)
    }

    /// Checks the root disk if `e2fsck` is installed.
    pub(super) fn check(&self, image: &Path) -> Result<(), Error> {
        match &self.e2fsck {
            Some(e2fsck) => e2fsck.run(image, self.scratch, self.stop),
            None => {
                tracing::warn!("e2fsck was not found, so the root disk is not checked");
                Ok(())
            }
        }
    }

    /// Makes an empty overlay disk.
    pub(super) fn overlay(&self, file: &File, image: &Path, size_mib: u64) -> Result<(), Error> {
        let tree = self.scratch.join("overlay");
        tree::make_overlay(&tree)?;
        // One inode for every 16 KiB, as is mke2fs's default.
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
