//! Writes the superblock, the group descriptors and the bitmaps of a filesystem.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{
    super::tree::{Body, Tree},
    BLOCK, Put,
    allocate::Allocation,
    geometry::{DESCRIPTOR_LEN, GROUP_BLOCKS, Geometry, INODE_LEN},
    number::{FIRST, Numbered},
};
use crate::image::{
    ext4::ROOT_UUID,
    ext4_size::{BLOCK_LEN, has_superblock},
    mke2fs::EPOCH,
};

const COMPAT_EXT_ATTR: u32 = 0x8;
const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_EXTENTS: u32 = 0x40;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_LARGE_FILE: u32 = 0x2;
const RO_COMPAT_HUGE_FILE: u32 = 0x8;
const RO_COMPAT_EXTRA_ISIZE: u32 = 0x40;

/// The offset of the superblock in the first block, which is also its length.
const SUPERBLOCK: usize = 1024;

/// Writes superblock, descriptors and bitmaps, and the copies of the first two.
pub(super) fn write(
    file: &File,
    tree: &Tree,
    numbered: &Numbered,
    allocation: &Allocation,
    geometry: &Geometry,
) -> io::Result<()> {
    let groups = Groups::new(tree, numbered, allocation, geometry);
    let descriptors = groups.descriptors(geometry);
    let mut superblock = superblock(geometry, numbered, groups.free_blocks());
    for group in 0..geometry.groups {
        let start = group * GROUP_BLOCKS * BLOCK_LEN;
        let one = groups.one(group);
        let blocks = bitmap(one.used_blocks, geometry.length(group));
        file.write_all_at(&blocks, geometry.block_bitmap(group) * BLOCK_LEN)?;
        let inodes = bitmap(one.used_inodes, geometry.inodes_per_group);
        file.write_all_at(&inodes, geometry.inode_bitmap(group) * BLOCK_LEN)?;
        if has_superblock(group) {
            superblock.put16(90, group as u16);
            let offset = if group == 0 { SUPERBLOCK as u64 } else { 0 };
            file.write_all_at(&superblock, start + offset)?;
            file.write_all_at(&descriptors, start + BLOCK_LEN)?;
        }
    }
    Ok(())
}

/// The used blocks and inodes of each group.
struct Groups(Vec<Group>);

#[derive(Clone, Copy, Default)]
struct Group {
    used_blocks: u64,
    used_inodes: u64,
    directories: u64,
    length: u64,
}

impl Groups {
    fn new(
        tree: &Tree,
        numbered: &Numbered,
        allocation: &Allocation,
        geometry: &Geometry,
    ) -> Groups {
        let per_group = geometry.inodes_per_group;
        let mut groups: Vec<_> = (0..geometry.groups)
            .map(|group| Group {
                used_blocks: allocation.used(group, geometry),
                used_inodes: numbered
                    .inodes()
                    .saturating_sub(group * per_group)
                    .min(per_group),
                directories: 0,
                length: geometry.length(group),
            })
            .collect();
        for file in numbered.files() {
            let group = (u64::from(file.number) - 1) / per_group;
            if matches!(tree.node(file.node).body, Body::Directory(_)) {
                groups[group as usize].directories += 1;
            }
        }
        Groups(groups)
    }

    fn one(&self, group: u64) -> Group {
        self.0[group as usize]
    }

    fn free_blocks(&self) -> u64 {
        let free = self.0.iter().map(|group| group.length - group.used_blocks);
        free.sum()
    }

    fn descriptors(&self, geometry: &Geometry) -> Vec<u8> {
        let mut bytes = vec![0; geometry.descriptor_blocks() as usize * BLOCK];
        let each = bytes.chunks_exact_mut(DESCRIPTOR_LEN as usize);
        for ((index, group), descriptor) in (0..).zip(&self.0).zip(each) {
            descriptor.put32(0, geometry.block_bitmap(index) as u32);
            descriptor.put32(4, geometry.inode_bitmap(index) as u32);
            descriptor.put32(8, geometry.inode_table(index) as u32);
            descriptor.put16(12, (group.length - group.used_blocks) as u16);
            let free = geometry.inodes_per_group - group.used_inodes;
            descriptor.put16(14, free as u16);
            descriptor.put16(16, group.directories as u16);
        }
        bytes
    }
}

/// A bitmap in which the first `used` bits are set, and the bits from `length` on, which have no block or inode.
fn bitmap(used: u64, length: u64) -> Vec<u8> {
    let mut bitmap = vec![0; BLOCK];
    set(&mut bitmap, 0, used);
    set(&mut bitmap, length, GROUP_BLOCKS);
    bitmap
}

fn set(bitmap: &mut [u8], from: u64, to: u64) {
    for bit in from..to {
        bitmap[bit as usize / 8] |= 1 << (bit % 8);
    }
}

fn superblock(geometry: &Geometry, numbered: &Numbered, free_blocks: u64) -> Vec<u8> {
    let inodes = geometry.groups * geometry.inodes_per_group;
    let mut bytes = vec![0; SUPERBLOCK];
    for (offset, value) in [
        (0, inodes),
        (4, geometry.blocks),
        (12, free_blocks),
        (16, inodes - numbered.inodes()),
        (24, 2), // Blocks of 1 KiB shifted by 2,
        (28, 2), // and so are clusters.
        (32, GROUP_BLOCKS),
        (36, GROUP_BLOCKS),
        (40, geometry.inodes_per_group),
        (48, EPOCH.into()),  // Last write,
        (64, EPOCH.into()),  // last check,
        (264, EPOCH.into()), // creation.
        (76, 1),             // The revision with features.
        (84, FIRST.into()),
        (92, COMPAT_EXT_ATTR.into()),
        (96, (INCOMPAT_FILETYPE | INCOMPAT_EXTENTS).into()),
        (
            100,
            (RO_COMPAT_SPARSE_SUPER
                | RO_COMPAT_LARGE_FILE
                | RO_COMPAT_HUGE_FILE
                | RO_COMPAT_EXTRA_ISIZE)
                .into(),
        ),
    ] {
        // A disk has at most 1 TiB, so 32 bits suffice for the number of its blocks.
        bytes.put32(offset, value as u32);
    }
    bytes.put16(54, u16::MAX); // No check after a number of mounts.
    bytes.put16(56, 0xef53);
    bytes.put16(58, 1); // The filesystem is clean.
    bytes.put16(60, 1); // Continue after errors, which is mke2fs's default.
    bytes.put16(88, INODE_LEN as u16);
    bytes.put16(348, 32); // The length of the extra fields of every inode,
    bytes.put16(350, 32); // and of new inodes.
    let digits: Vec<u8> = ROOT_UUID.bytes().filter(|&byte| byte != b'-').collect();
    for (byte, pair) in bytes[104..120].iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok();
        *byte = pair
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .unwrap_or_default();
    }
    bytes
}
