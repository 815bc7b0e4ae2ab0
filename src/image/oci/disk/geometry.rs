//! [`Geometry`]: the division of a filesystem into groups of blocks, and the places of each group's tables.

use crate::image::ext4_size::{BLOCK_LEN, has_superblock};

/// The blocks of a group: the number of bits in a bitmap of one block. A group has at most as many inodes.
pub(super) const GROUP_BLOCKS: u64 = BLOCK_LEN * 8;
pub(super) const INODE_LEN: u64 = 256;
const INODES_PER_BLOCK: u64 = BLOCK_LEN / INODE_LEN;
/// The length of a group's descriptor.
pub(super) const DESCRIPTOR_LEN: u64 = 32;

/// The division of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) blocks: u64,
    pub(super) groups: u64,
    pub(super) inodes_per_group: u64,
}

impl Geometry {
    /// Divides up to `blocks` blocks for `inodes` inodes; `None` if the inodes don't fit.
    pub(super) fn new(blocks: u64, inodes: u64) -> Option<Geometry> {
        let with_groups = |groups: u64| Geometry {
            blocks,
            groups,
            inodes_per_group: inodes
                .div_ceil(groups.max(1))
                .next_multiple_of(INODES_PER_BLOCK),
        };
        let mut geometry = with_groups(blocks.div_ceil(GROUP_BLOCKS));
        let last = geometry.groups.checked_sub(1)?;
        // A last group that has no data blocks stays unused.
        if blocks - last * GROUP_BLOCKS <= geometry.overhead(last) {
            geometry = with_groups(last);
            geometry.blocks = last * GROUP_BLOCKS;
        }
        let has_room = geometry.groups > 0 && geometry.inodes_per_group <= GROUP_BLOCKS;
        has_room.then_some(geometry)
    }

    /// The blocks of the descriptors of all groups.
    pub(super) fn descriptor_blocks(&self) -> u64 {
        (self.groups * DESCRIPTOR_LEN).div_ceil(BLOCK_LEN)
    }

    /// The group's blocks that hold the superblock and the descriptors.
    fn head(&self, group: u64) -> u64 {
        match has_superblock(group) {
            true => 1 + self.descriptor_blocks(),
            false => 0,
        }
    }

    /// The group's blocks before its data.
    pub(super) fn overhead(&self, group: u64) -> u64 {
        self.head(group) + 2 + self.inodes_per_group / INODES_PER_BLOCK
    }

    pub(super) fn block_bitmap(&self, group: u64) -> u64 {
        group * GROUP_BLOCKS + self.head(group)
    }

    pub(super) fn inode_bitmap(&self, group: u64) -> u64 {
        self.block_bitmap(group) + 1
    }

    pub(super) fn inode_table(&self, group: u64) -> u64 {
        self.block_bitmap(group) + 2
    }

    /// The number of blocks of a group. The last group may have fewer than the others.
    pub(super) fn length(&self, group: u64) -> u64 {
        GROUP_BLOCKS.min(self.blocks - group * GROUP_BLOCKS)
    }

    /// The offset of an inode on the disk, in bytes.
    pub(super) fn inode_offset(&self, number: u32) -> u64 {
        let index = u64::from(number) - 1;
        let (group, within) = (index / self.inodes_per_group, index % self.inodes_per_group);
        self.inode_table(group) * BLOCK_LEN + within * INODE_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_room_for_all_inodes() {
        for (blocks, inodes) in [
            (1024, 11),
            (32_768, 32_768),
            (3 * 32_768, 70_000),
            (200 * 32_768 + 5000, 1_000_000),
        ] {
            let geometry = Geometry::new(blocks, inodes).expect("has room");
            assert!(geometry.groups * geometry.inodes_per_group >= inodes);
            assert!(geometry.blocks <= blocks);
            let last = geometry.groups - 1;
            assert!(geometry.length(last) > geometry.overhead(last), "{blocks}");
        }
        assert_eq!(Geometry::new(32_768, 32_769), None);
        assert_eq!(Geometry::new(0, 11), None);
        assert_eq!(Geometry::new(3, 11), None);
    }

    #[test]
    fn a_last_group_without_room_is_left_out() {
        let geometry = Geometry::new(GROUP_BLOCKS + 3, 100).expect("has room");
        assert_eq!((geometry.groups, geometry.blocks), (1, GROUP_BLOCKS));
    }
}
