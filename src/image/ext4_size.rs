//! Computes how many blocks of 4 KiB a tree needs on the ext4 that `mke2fs` makes ([`Needs`]).
//!
//! Every number is an upper bound of what `mke2fs -d` allocates, so a disk of [`Needs::disk_mib`] always holds its
//! tree. Layout: the kernel's Documentation/filesystems/ext4.

use super::input::MIB;

pub(super) const BLOCK_LEN: u64 = 4096;
const BLOCKS_PER_MIB: u64 = MIB / BLOCK_LEN;
/// The blocks of a group: the number of bits in a bitmap of one block. A group has at most as many inodes.
const PER_GROUP: u64 = BLOCK_LEN * 8;
const INODES_PER_BLOCK: u64 = 16;
const GROUP_DESCRIPTORS_PER_BLOCK: u64 = 128;
/// The inodes that a filesystem reserves, and that of `lost+found`.
const RESERVED_INODES: u64 = 16;
/// The blocks that `mke2fs` gives `lost+found`.
const LOST_AND_FOUND: u64 = 4;
/// If the last of several groups would have fewer blocks than this besides its own tables, `mke2fs` leaves it unused.
const LAST_GROUP: u64 = 50;
/// Blocks for the extent lists of files that are stored in more pieces than counted, because the last free blocks of a
/// full disk aren't adjacent.
const FRAGMENTS: u64 = 16;

/// The most blocks that one extent covers.
const EXTENT_BLOCKS: u64 = 32_768;
const EXTENTS_IN_INODE: u64 = 4;
/// One less than fits into a block, because `mke2fs` splits a full block when it adds the next extent.
const EXTENTS_PER_BLOCK: u64 = 339;

/// The longest target of a symbolic link that lies in its inode, in bytes.
const TARGET_IN_INODE: u64 = 59;

/// The inodes and blocks that a tree needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The number of files, directories and symbolic links. A file with several names counts once.
    pub(super) inodes: u64,
    /// The number of blocks for contents, directories, extent lists, long symbolic links and extended attributes.
    pub(super) blocks: u64,
}

impl Needs {
    /// How many inodes the file system must have.
    pub(super) fn all_inodes(self) -> u64 {
        self.inodes + RESERVED_INODES
    }

    /// The smallest disk that certainly holds the tree, in whole MiB.
    pub(super) fn disk_mib(self) -> u64 {
        let needed = self.blocks + LOST_AND_FOUND;
        let mut blocks = needed;
        // The loop ends, because each further group costs only a few of the thousands of blocks that it adds.
        loop {
            let total = needed + overhead(blocks, self.all_inodes());
            if total <= blocks {
                return blocks.div_ceil(BLOCKS_PER_MIB);
            }
            blocks = total;
        }
    }
}

/// The blocks that a filesystem with so many blocks and inodes uses for its own tables, and those that may stay unused
/// at its end.
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

/// The blocks of a file with `blocks` blocks of data in `pieces` pieces.
pub(super) fn file(blocks: u64, pieces: u64) -> u64 {
    // A piece is split where an extent is full, and where a group's tables lie between its blocks.
    let extents = (pieces + 1 + 2 * (blocks / EXTENT_BLOCKS)).min(blocks);
    blocks + extent_tree(extents)
}

/// The blocks of a symbolic link with a target of `target_len` bytes.
pub(super) fn symbolic_link(target_len: u64) -> u64 {
    u64::from(target_len > TARGET_IN_INODE)
}

/// The blocks that list a file's extents if the list doesn't fit into its inode.
fn extent_tree(extents: u64) -> u64 {
    let mut blocks = 0;
    let mut entries = extents;
    while entries > EXTENTS_IN_INODE {
        entries = entries.div_ceil(EXTENTS_PER_BLOCK);
        blocks += entries;
    }
    blocks
}

/// Adds up the entries of a directory.
#[derive(Default)]
pub(super) struct Names {
    /// The length of all entries, in bytes.
    total: u64,
    /// The length of the longest entry, in bytes.
    longest: u64,
}

impl Names {
    pub(super) fn add(&mut self, name_len: usize) {
        let len = (8 + name_len as u64).next_multiple_of(4);
        self.total += len;
        self.longest = self.longest.max(len);
    }

    /// The directory's blocks. An entry doesn't cross a block boundary, so the end of a block stays unused if the next
    /// entry doesn't fit.
    pub(super) fn blocks(&self) -> u64 {
        const DOTS: u64 = 24; // `.` and `..`
        let filled = BLOCK_LEN - self.longest.saturating_sub(4);
        let blocks = (self.total + DOTS).div_ceil(filled).max(1);
        // Each block may be an extent of its own, because blocks of the files are allocated in between.
        blocks + extent_tree(blocks)
    }
}

/// Adds up the extended attributes of one inode.
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

    /// The number of blocks outside the inode, 0 or 1; `None` if the attributes don't fit into the inode and one block.
    pub(super) fn blocks(&self) -> Option<u64> {
        /// An inode of 256 bytes, without the 160 of its fields, a magic number and the end of the list.
        const IN_INODE: u64 = 256 - 160 - 4 - 4;
        /// A block without its header and the end of the list.
        const IN_BLOCK: u64 = BLOCK_LEN - 32 - 4;
        match self.total {
            0..=IN_INODE => Some(0),
            // Whether they fit depends on which of them mke2fs puts into the inode. If they don't, mke2fs fails.
            total if total <= IN_INODE + IN_BLOCK => Some(1),
            _ => None,
        }
    }

    /// The length of all entries, in bytes.
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
