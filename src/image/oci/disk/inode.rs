//! Writes inodes, and the leaf blocks that list the extents of a file with many extents.

use super::{
    super::tree::{Attributes, Body, Node},
    BLOCK, Put,
    allocate::{Allocation, Extent},
    attributes::{self, Place},
    geometry::INODE_LEN,
    number::NumberedFile,
};
use crate::image::{ext4_size::BLOCK_LEN, mke2fs::EPOCH};

/// A symbolic link's target with this many bytes or more has a block of its own.
pub(super) const TARGET_IN_INODE: usize = 60;
/// The most extents, or leaf blocks, that an inode can list.
pub(super) const EXTENTS_IN_INODE: usize = 4;

/// The offset of the extent list or of a short link target in an inode.
const LIST: usize = 40;
/// The length of an inode's fields beyond the first 128 bytes. Extended attributes follow them.
const EXTRA: u16 = 32;
const USES_EXTENTS: u32 = 0x8_0000;
/// The unit of an inode's count of blocks, in bytes.
const SECTOR: u64 = 512;

const REGULAR: u16 = 0o100_000;
const DIRECTORY: u16 = 0o040_000;
const SYMLINK: u16 = 0o120_000;
const FIFO: u16 = 0o010_000;

/// The inode of a file.
pub(super) fn inode(
    node: &Node,
    file: &NumberedFile,
    allocation: &Allocation,
) -> [u8; INODE_LEN as usize] {
    let mut inode = [0; INODE_LEN as usize];
    let (kind, size) = match &node.body {
        Body::Directory(_) => (DIRECTORY, blocks(allocation.data(file)) * BLOCK_LEN),
        Body::File { size, .. } => (REGULAR, *size),
        Body::Symlink(target) => (SYMLINK, target.len() as u64),
        Body::Fifo => (FIFO, 0),
    };
    let Attributes {
        mode, user, group, ..
    } = node.attributes;
    inode.put16(0, kind | mode);
    inode.put16(2, user as u16);
    inode.put16(120, (user >> 16) as u16);
    inode.put16(24, group as u16);
    inode.put16(122, (group >> 16) as u16);
    inode.put32(4, size as u32);
    inode.put32(108, (size >> 32) as u32);
    inode.put16(26, file.links);
    inode.put16(128, EXTRA);
    times(&mut inode, node.attributes.modified);

    let leaves = allocation.leaves(file).count() as u64;
    let block_of_attributes = allocation.attributes(file);
    let all = blocks(allocation.data(file)) + leaves + u64::from(block_of_attributes.is_some());
    let sectors = all * (BLOCK_LEN / SECTOR);
    inode.put32(28, sectors as u32);
    inode.put16(116, (sectors >> 32) as u16);

    match &node.body {
        Body::Symlink(target) if target.len() < TARGET_IN_INODE => {
            inode[LIST..LIST + target.len()].copy_from_slice(target);
        }
        Body::Fifo => {}
        _ => {
            inode.put32(32, USES_EXTENTS);
            list_of_extents(&mut inode[LIST..LIST + 60], file, allocation);
        }
    }
    if let Some(block) = block_of_attributes {
        inode.put32(104, block as u32);
        inode.put16(118, (block >> 32) as u16);
    }
    if file.attributes == Place::Inode {
        attributes::in_inode(
            &node.attributes.extended,
            &mut inode[128 + EXTRA as usize..],
        );
    }
    inode
}

fn blocks(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.blocks).sum()
}

/// Sets the time of last modification to that of the layer, and all other times to the fixed [`EPOCH`].
fn times(inode: &mut [u8], (seconds, nanos): (i64, u32)) {
    /// The range of times with 34 bits, which ends in the year 2446.
    const EARLIEST: i64 = i32::MIN as i64;
    const LATEST: i64 = (1 << 34) + EARLIEST - 1;

    for offset in [8, 12, 144] {
        inode.put32(offset, EPOCH);
    }
    let seconds = seconds.clamp(EARLIEST, LATEST);
    let low = seconds as i32;
    let epoch = ((seconds - i64::from(low)) >> 32) as u32;
    inode.put32(16, low.cast_unsigned());
    inode.put32(136, nanos << 2 | epoch);
}

const MAGIC: u16 = 0xf30a;
const RECORD: usize = 12;

/// Writes the header of a list of extents, or of leaf blocks (`depth` 1).
fn header(list: &mut [u8], count: usize, depth: u16) {
    let most = list.len() / RECORD - 1;
    list.put16(0, MAGIC);
    list.put16(2, count as u16);
    list.put16(4, most as u16);
    list.put16(6, depth);
}

fn list_of_extents(list: &mut [u8], file: &NumberedFile, allocation: &Allocation) {
    let leaves: Vec<_> = allocation.leaves(file).collect();
    if leaves.is_empty() {
        return extents(list, allocation.data(file));
    }
    header(list, leaves.len(), 1);
    for (index, (block, extents)) in leaves.iter().enumerate() {
        let at = (index + 1) * RECORD;
        let first = extents.first().map_or(0, |extent| extent.logical);
        list.put32(at, first as u32);
        list.put32(at + 4, *block as u32);
        list.put16(at + 8, (block >> 32) as u16);
    }
}

fn extents(list: &mut [u8], extents: &[Extent]) {
    header(list, extents.len(), 0);
    for (index, extent) in extents.iter().enumerate() {
        let at = (index + 1) * RECORD;
        list.put32(at, extent.logical as u32);
        list.put16(at + 4, extent.blocks as u16);
        list.put16(at + 6, (extent.start >> 32) as u16);
        list.put32(at + 8, extent.start as u32);
    }
}

/// A leaf block, which lists extents.
pub(super) fn leaf(listed: &[Extent]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    extents(&mut block, listed);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::input::u32_at;

    #[test]
    fn times_have_34_bits_and_nanoseconds() {
        let check = |modified, low: u32, extra: u32| {
            let mut inode = [0; INODE_LEN as usize];
            times(&mut inode, modified);
            assert_eq!(
                (u32_at(&inode, 16), u32_at(&inode, 136)),
                (Some(low), Some(extra)),
                "{modified:?}"
            );
        };
        check((0, 0), 0, 0);
        check((5, 999_999_999), 5, 999_999_999 << 2);
        check((-1, 0), u32::MAX, 0);
        check((1 << 31, 0), 1 << 31, 1);
        check((1 << 32, 0), 0, 1);
        check((1 << 60, 0), 0x7fff_ffff, 3);
        check((i64::MIN, 0), 1 << 31, 0);
    }
}
