//! How much room things take on the ext4 that `mke2fs` makes, in blocks of 4 KiB.
//!
//! Nothing here is less than what `mke2fs -d` allocates, so a disk of [`Needs::disk_mib`] always holds its tree.
//! Layout: the kernel's Documentation/filesystems/ext4.

use super::input::MIB;

pub(super) const BLOCK_LEN: u64 = 4096;
const BLOCKS_PER_MIB: u64 = MIB / BLOCK_LEN;
/// As many as a bitmap of one block has bits, and so many inodes at most.
const PER_GROUP: u64 = BLOCK_LEN * 8;
const INODES_PER_BLOCK: u64 = 16;
const GROUP_DESCRIPTORS_PER_BLOCK: u64 = 128;
/// Inodes that a file system keeps for itself, and `lost+found`.
const RESERVED_INODES: u64 = 16;
/// What `mke2fs` gives `lost+found`.
const LOST_AND_FOUND: u64 = 4;
/// `mke2fs` leaves a last of several groups unused that would have less than this beside its own tables.
const LAST_GROUP: u64 = 50;
/// Lists of extents for files in more pieces than counted, as the last blocks of a full disk lie apart.
const FRAGMENTS: u64 = 16;

/// The most that one extent covers, in blocks.
const EXTENT_BLOCKS: u64 = 32_768;
const EXTENTS_IN_INODE: u64 = 4;
/// One less than fits into a block: `mke2fs` splits a full one as it adds the next.
const EXTENTS_PER_BLOCK: u64 = 339;

/// The longest target of a symbolic link that lies in its inode, in bytes.
const TARGET_IN_INODE: u64 = 59;

/// What a tree needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Files, directories and symbolic links; several names of one file are one.
    pub(super) inodes: u64,
    /// Contents, directories, and whatever lies in blocks of its own.
    pub(super) blocks: u64,
}

impl Needs {
    /// How many inodes the file system must have.
    pub(super) fn all_inodes(self) -> u64 {
        self.inodes + RESERVED_INODES
    }

    /// The smallest disk that is sure to hold the tree, in whole MiB.
    pub(super) fn disk_mib(self) -> u64 {
        let needed = self.blocks + LOST_AND_FOUND;
        let mut blocks = needed;
        // Each group that is added costs a few blocks of the thousands that it brings.
        loop {
            let total = needed + overhead(blocks, self.all_inodes());
            if total <= blocks {
                return blocks.div_ceil(BLOCKS_PER_MIB);
            }
            blocks = total;
        }
    }
}

/// What a file system of so many blocks and inodes keeps for itself, and what of its end may stay unused.
fn overhead(blocks: u64, inodes: u64) -> u64 {
    let groups = blocks.div_ceil(PER_GROUP).max(inodes.div_ceil(PER_GROUP));
    let inode_blocks = inodes.div_ceil(groups).div_ceil(INODES_PER_BLOCK) + 1;
    let superblock = 1 + groups.div_ceil(GROUP_DESCRIPTORS_PER_BLOCK);
    let copies = (0..groups).filter(|&group| has_superblock(group)).count() as u64;
    let of_each_group = 2 + inode_blocks; // Two bitmaps.
    let unused_end = if groups > 1 {
        of_each_group + superblock + LAST_GROUP
    } else {
        0
    };
    groups * of_each_group + copies * superblock + unused_end + FRAGMENTS
}

/// Whether a group has a copy of the superblock: the first two, and the powers of 3, 5 and 7.
pub(super) fn has_superblock(group: u64) -> bool {
    let is_power = |base: u64| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group <= 1 || [3, 5, 7].into_iter().any(is_power)
}

/// A file of so many blocks of data, in so many pieces.
pub(super) fn file(blocks: u64, pieces: u64) -> u64 {
    // A piece is cut where an extent is full, and where a group's tables lie in its way.
    let extents = (pieces + 1 + 2 * (blocks / EXTENT_BLOCKS)).min(blocks);
    blocks + extent_tree(extents)
}

/// A symbolic link with a target of so many bytes.
pub(super) fn symbolic_link(target_len: u64) -> u64 {
    u64::from(target_len > TARGET_IN_INODE)
}

/// The blocks in which a file's extents are listed, once they don't fit into its inode.
fn extent_tree(extents: u64) -> u64 {
    let mut blocks = 0;
    let mut entries = extents;
    while entries > EXTENTS_IN_INODE {
        entries = entries.div_ceil(EXTENTS_PER_BLOCK);
        blocks += entries;
    }
    blocks
}

/// The names in a directory.
#[derive(Default)]
pub(super) struct Names {
    /// All entries, in bytes.
    total: u64,
    /// The longest entry, in bytes.
    longest: u64,
}

impl Names {
    pub(super) fn add(&mut self, name_len: usize) {
        let len = (8 + name_len as u64).next_multiple_of(4);
        self.total += len;
        self.longest = self.longest.max(len);
    }

    /// The directory's blocks. An entry doesn't cross into another block; a block is left when the next doesn't fit.
    pub(super) fn blocks(&self) -> u64 {
        const DOTS: u64 = 24; // `.` and `..`
        let filled = BLOCK_LEN - self.longest.saturating_sub(4);
        let blocks = (self.total + DOTS).div_ceil(filled).max(1);
        // Each was allocated alone, between the contents of what it names.
        blocks + extent_tree(blocks)
    }
}

/// The extended attributes of one inode.
#[derive(Default)]
pub(super) struct Attributes {
    total: u64,
}

impl Attributes {
    pub(super) fn add(&mut self, name: &[u8], value_len: usize) {
        // The namespace (`user.`) is stored as a number.
        let name_len = match name.iter().position(|&byte| byte == b'.') {
            Some(dot) => name.len() - dot - 1,
            None => name.len(),
        };
        let aligned = |len: usize| (len as u64).next_multiple_of(4);
        self.total += 16 + aligned(name_len) + aligned(value_len);
    }

    /// The blocks outside of the inode: none or one; `None` if they can't fit into both together.
    pub(super) fn blocks(&self) -> Option<u64> {
        /// An inode of 256 bytes, without the 160 of its fields, a magic number and the end of the list.
        const IN_INODE: u64 = 256 - 160 - 4 - 4;
        /// A block without its header and the end of the list.
        const IN_BLOCK: u64 = BLOCK_LEN - 32 - 4;
        match self.total {
            0..=IN_INODE => Some(0),
            // Whether the sum fits depends on which of them the inode takes; mke2fs says so if it doesn't.
            total if total <= IN_INODE + IN_BLOCK => Some(1),
            _ => None,
        }
    }

    /// The sum of their entries, in bytes.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_holds_what_mke2fs_makes_of_an_empty_tree() {
        // A superblock, descriptors, two bitmaps, a table, the root, `lost+found`: rounded up to a MiB.
        let empty = Needs {
            inodes: 1,
            blocks: 1,
        };
        assert_eq!(empty.disk_mib(), 1);
    }

    #[test]
    fn a_disk_is_little_larger_than_what_it_holds() {
        let check = |inodes, mib: u64, most: u64| {
            let needs = Needs {
                inodes,
                blocks: mib * BLOCKS_PER_MIB,
            };
            let disk = needs.disk_mib();
            assert!((mib..=most).contains(&disk), "{mib} MiB took {disk}");
        };
        check(100, 1, 2);
        check(1000, 100, 101);
        check(1000, 1024, 1028);
        check(1000, 64 * 1024, 64 * 1024 + 40);
        // The inodes alone are 244 MiB.
        check(1_000_000, 1, 256);
    }

    #[test]
    fn extents_that_do_not_fit_into_the_inode_have_blocks() {
        assert_eq!([0, 1, 4].map(|pieces| file(pieces, pieces)), [0, 1, 4]);
        assert_eq!(file(5, 5), 6);
        assert_eq!(file(100, 3), 100);
        assert_eq!(file(100, 4), 101);
        assert_eq!(file(339, 339), 340);
        assert_eq!(file(340, 340), 342);
        // 59 leaves for 20,000 extents are what mke2fs 1.47 made, and one block above them.
        assert_eq!(file(20_000, 20_000), 20_000 + 59 + 1);
        assert_eq!(file(4 * 32_768, 1), 4 * 32_768 + 1);
    }

    #[test]
    fn names_fill_blocks() {
        let blocks = |count, len| {
            let mut names = Names::default();
            (0..count).for_each(|_| names.add(len));
            names.blocks()
        };
        assert_eq!(blocks(0, 0), 1);
        assert_eq!(blocks(100, 20), 1);
        // Fifteen entries of 264 bytes to a block, and the list of 67 blocks in one more.
        assert_eq!(blocks(1000, 255), 69 + 1);
    }

    #[test]
    fn attributes_lie_in_the_inode_a_block_or_nowhere() {
        let blocks = |sizes: &[usize]| {
            let mut attributes = Attributes::default();
            sizes
                .iter()
                .for_each(|&size| attributes.add(b"user.a", size));
            attributes.blocks()
        };
        assert_eq!(blocks(&[]), Some(0));
        assert_eq!(blocks(&[68]), Some(0));
        assert_eq!(blocks(&[69]), Some(1));
        assert_eq!(blocks(&[40, 40]), Some(1));
        assert_eq!(blocks(&[4040, 68]), Some(1));
        assert_eq!(blocks(&[4040, 69]), None);
        assert_eq!(blocks(&[3000, 3000]), None);
    }

    #[test]
    fn copies_of_the_superblock() {
        let groups: Vec<u64> = (0..50).filter(|&group| has_superblock(group)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49]);
    }
}
