//! [`Disk`]: writes a tree as an ext4, without a mount and without files for the tree on the host.
//!
//! So owners, modes, set-id bits and capabilities never exist on files of the host, and the same tree gives the same
//! bytes, independent of user, umask and time. The filesystem is like that of the other root disks from `mke2fs`, but
//! without `lost+found`: extents, no journal, no metadata checksums. Layout: the kernel's
//! Documentation/filesystems/ext4.

mod allocate;
mod attributes;
mod directory;
mod geometry;
mod inode;
mod number;
mod superblock;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
};

use super::{
    error::ContainerError,
    tree::{Body, Tree},
};
use crate::image::{Error, ext4::DISK_MIB, ext4_size::BLOCK_LEN, input::MIB, stop::Stop};
use allocate::Allocation;
use geometry::Geometry;
use number::Numbered;

const BLOCKS_PER_MIB: u64 = MIB / BLOCK_LEN;
const BLOCK: usize = BLOCK_LEN as usize;

/// The disk that a tree is written to.
pub(super) struct Disk<'a> {
    /// An empty file, at `path`.
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
    pub(super) size_mib: Option<u64>,
    pub(super) stop: Stop<'a>,
}

impl Disk<'_> {
    /// Writes the tree, whose contents lie in `spool`.
    pub(super) fn write(&self, tree: &Tree, spool: &mut File) -> Result<(), Error> {
        let numbered = Numbered::new(tree)?;
        let (geometry, allocation) = self.place(tree, &numbered)?;
        let failed = |error| Error::io("write", self.path)(error);
        self.file
            .set_len(geometry.blocks * BLOCK_LEN)
            .map_err(failed)?;
        self.contents(tree, &numbered, &allocation, spool)?;
        self.metadata(tree, &numbered, &allocation)
            .map_err(failed)?;
        self.inodes(tree, &numbered, &allocation, &geometry)
            .map_err(failed)?;
        superblock::write(self.file, tree, &numbered, &allocation, &geometry).map_err(failed)
    }

    /// Decides the size of the filesystem and the place of everything.
    fn place(&self, tree: &Tree, numbered: &Numbered) -> Result<(Geometry, Allocation), Error> {
        let Some(size_mib) = self.size_mib else {
            return self.smallest(tree, numbered);
        };
        if let Some(geometry) = Geometry::new(size_mib * BLOCKS_PER_MIB, numbered.inodes()) {
            let allocation = Allocation::new(tree, numbered, &geometry)?;
            if allocation.end <= geometry.blocks {
                return Ok((geometry, allocation));
            }
        }
        let (needed, _) = self.smallest(tree, numbered)?;
        let needed_mib = needed.blocks.div_ceil(BLOCKS_PER_MIB);
        Err(ContainerError::DoesNotFit {
            size_mib,
            needed_mib,
        }
        .into())
    }

    /// The smallest filesystem that holds everything, in whole MiB.
    fn smallest(&self, tree: &Tree, numbered: &Numbered) -> Result<(Geometry, Allocation), Error> {
        let mut mib = *DISK_MIB.start();
        loop {
            self.stop.check()?;
            if mib > *DISK_MIB.end() {
                return Err(ContainerError::Filesystem {
                    what: "the MiB",
                    limit: *DISK_MIB.end(),
                }
                .into());
            }
            let Some(geometry) = Geometry::new(mib * BLOCKS_PER_MIB, numbered.inodes()) else {
                // There are too few groups for this number of inodes.
                mib += 1;
                continue;
            };
            let allocation = Allocation::new(tree, numbered, &geometry)?;
            if allocation.end <= geometry.blocks {
                return Ok((geometry, allocation));
            }
            // The next size is the one where this allocation ends. With more groups, each has fewer inodes, so the size
            // may be too large by the blocks of a few tables, but not by more.
            mib = allocation.end.div_ceil(BLOCKS_PER_MIB).max(mib + 1);
        }
    }

    /// Copies the contents in the order of the spool, joining adjacent ranges.
    fn contents(
        &self,
        tree: &Tree,
        numbered: &Numbered,
        allocation: &Allocation,
        spool: &mut File,
    ) -> Result<(), Error> {
        let mut range: Option<Range> = None;
        let mut file = self.file;
        let mut copy = |range: Range| -> Result<(), Error> {
            self.stop.check()?;
            let mut copied = || -> io::Result<()> {
                spool.seek(SeekFrom::Start(range.from * BLOCK_LEN))?;
                file.seek(SeekFrom::Start(range.to * BLOCK_LEN))?;
                let length = range.blocks * BLOCK_LEN;
                match io::copy(&mut (&mut *spool).take(length), &mut file)? {
                    copied if copied == length => Ok(()),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            };
            copied().map_err(Error::io("write", self.path))
        };
        for file in numbered.files_in_spool(tree) {
            let Body::File { offset, .. } = tree.node(file.node).body else {
                continue;
            };
            for extent in allocation.data(&file) {
                let next = Range {
                    from: offset / BLOCK_LEN + extent.logical,
                    to: extent.start,
                    blocks: extent.blocks,
                };
                range = match range {
                    Some(range) if range.continues_in(&next) => Some(Range {
                        blocks: range.blocks + next.blocks,
                        ..range
                    }),
                    Some(range) => {
                        copy(range)?;
                        Some(next)
                    }
                    None => Some(next),
                };
            }
        }
        range.map_or(Ok(()), copy)
    }

    /// Writes the blocks of directories, long link targets, extended attributes and extent lists.
    fn metadata(
        &self,
        tree: &Tree,
        numbered: &Numbered,
        allocation: &Allocation,
    ) -> io::Result<()> {
        for file in numbered.files() {
            let node = tree.node(file.node);
            let bytes = match &node.body {
                Body::Directory(_) => directory::blocks(tree, numbered, file),
                Body::Symlink(target) if target.len() >= inode::TARGET_IN_INODE => target.to_vec(),
                _ => Vec::new(),
            };
            for extent in allocation.data(file).iter().filter(|_| !bytes.is_empty()) {
                let start = extent.logical as usize * BLOCK;
                let end = (start + extent.blocks as usize * BLOCK).min(bytes.len());
                self.file
                    .write_all_at(&bytes[start..end], extent.start * BLOCK_LEN)?;
            }
            if let Some(block) = allocation.attributes(file) {
                let bytes = attributes::block(&node.attributes.extended);
                self.file.write_all_at(&bytes, block * BLOCK_LEN)?;
            }
            for (leaf, extents) in allocation.leaves(file) {
                self.file
                    .write_all_at(&inode::leaf(extents), leaf * BLOCK_LEN)?;
            }
        }
        Ok(())
    }

    fn inodes(
        &self,
        tree: &Tree,
        numbered: &Numbered,
        allocation: &Allocation,
        geometry: &Geometry,
    ) -> io::Result<()> {
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        for file in numbered.files() {
            let at = geometry.inode_offset(file.number);
            if start + run.len() as u64 != at {
                self.file.write_all_at(&run, start)?;
                run.clear();
                start = at;
            }
            run.extend(inode::inode(tree.node(file.node), file, allocation));
        }
        self.file.write_all_at(&run, start)
    }
}

/// A range of blocks to copy from the spool to the disk.
#[derive(Clone, Copy)]
struct Range {
    from: u64,
    to: u64,
    blocks: u64,
}

impl Range {
    fn continues_in(&self, next: &Range) -> bool {
        self.from + self.blocks == next.from && self.to + self.blocks == next.to
    }
}

/// Writes little-endian numbers into a block or an inode.
trait Put {
    fn put16(&mut self, offset: usize, value: u16);
    fn put32(&mut self, offset: usize, value: u32);
}

impl Put for [u8] {
    fn put16(&mut self, offset: usize, value: u16) {
        self[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn put32(&mut self, offset: usize, value: u32) {
        self[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
}
