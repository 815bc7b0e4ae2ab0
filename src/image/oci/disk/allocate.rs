//! [`Allocation`]: assigns blocks to files one after the other, beginning with the first data block of the first group.

use std::ops::Range;

use super::{
    super::{
        error::ContainerError,
        tree::{Body, Tree},
    },
    attributes::Place,
    directory,
    geometry::{GROUP_BLOCKS, Geometry},
    inode::{EXTENTS_IN_INODE, TARGET_IN_INODE},
    number::{Numbered, NumberedFile},
};
use crate::image::ext4_size::BLOCK_LEN;

/// The most blocks of one extent.
const EXTENT_BLOCKS: u64 = 32_768;
/// The extents that fit into one block.
const EXTENTS_PER_LEAF: usize = 340;
/// The most extents of one file: those in the leaf blocks that its inode can list.
const EXTENT_LIMIT: usize = EXTENTS_IN_INODE * EXTENTS_PER_LEAF;

/// Adjacent blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The number of the first block within the file.
    pub(super) logical: u64,
    /// The number of the first block on the disk.
    pub(super) start: u64,
    pub(super) blocks: u64,
}

/// The blocks of all files.
pub(super) struct Allocation {
    files: Vec<Placed>,
    extents: Vec<Extent>,
    leaves: Vec<u64>,
    /// The first unused block. If it lies beyond the end of the filesystem, the files don't fit.
    pub(super) end: u64,
}

#[derive(Clone, Default)]
struct Placed {
    extents: Range<usize>,
    leaves: Range<usize>,
    attributes: Option<u64>,
}

impl Allocation {
    /// Assigns all blocks. The groups continue beyond the end of the filesystem, so that [`end`](Self::end) shows how
    /// much is missing.
    pub(super) fn new(
        tree: &Tree,
        numbered: &Numbered,
        geometry: &Geometry,
    ) -> Result<Allocation, ContainerError> {
        let mut allocation = Allocation {
            files: vec![Placed::default(); numbered.files().len()],
            extents: Vec::new(),
            leaves: Vec::new(),
            end: geometry.overhead(0),
        };
        for file in numbered.files() {
            let length = match &tree.node(file.node).body {
                Body::Directory(_) => directory::length(tree, file.node),
                Body::Symlink(target) if target.len() >= TARGET_IN_INODE => BLOCK_LEN,
                _ => 0,
            };
            allocation.data_of(file, length, geometry)?;
            if file.attributes == Place::Block {
                let block = allocation.next(1, geometry).start;
                allocation.files[file.index].attributes = Some(block);
            }
        }
        for file in numbered.files_in_spool(tree) {
            if let Body::File { size, .. } = tree.node(file.node).body {
                allocation.data_of(&file, size, geometry)?;
            }
        }
        Ok(allocation)
    }

    fn data_of(
        &mut self,
        file: &NumberedFile,
        length: u64,
        geometry: &Geometry,
    ) -> Result<(), ContainerError> {
        let blocks = length.div_ceil(BLOCK_LEN);
        let first = self.extents.len();
        let mut logical = 0;
        while logical < blocks {
            let extent = Extent {
                logical,
                ..self.next(blocks - logical, geometry)
            };
            logical += extent.blocks;
            self.extents.push(extent);
        }
        let extents = first..self.extents.len();
        if extents.len() > EXTENT_LIMIT {
            return Err(ContainerError::Filesystem {
                what: "the extents of a file",
                limit: EXTENT_LIMIT as u64,
            });
        }
        let first = self.leaves.len();
        if extents.len() > EXTENTS_IN_INODE {
            for _ in 0..extents.len().div_ceil(EXTENTS_PER_LEAF) {
                let leaf = self.next(1, geometry).start;
                self.leaves.push(leaf);
            }
        }
        let placed = &mut self.files[file.index];
        placed.extents = extents;
        placed.leaves = first..self.leaves.len();
        Ok(())
    }

    /// The next free blocks: `wanted`, or fewer if the group or the extent ends before.
    fn next(&mut self, wanted: u64, geometry: &Geometry) -> Extent {
        if self.end.is_multiple_of(GROUP_BLOCKS) {
            self.end += geometry.overhead(self.end / GROUP_BLOCKS);
        }
        let left = GROUP_BLOCKS - self.end % GROUP_BLOCKS;
        let extent = Extent {
            logical: 0,
            start: self.end,
            blocks: wanted.min(left).min(EXTENT_BLOCKS),
        };
        self.end += extent.blocks;
        extent
    }

    /// The extents of a file's content, of a directory's names, or of a long link target.
    pub(super) fn data(&self, file: &NumberedFile) -> &[Extent] {
        &self.extents[self.files[file.index].extents.clone()]
    }

    /// The leaf blocks that list the extents of a file whose extents don't fit into its inode, each with its extents.
    pub(super) fn leaves(&self, file: &NumberedFile) -> impl Iterator<Item = (u64, &[Extent])> {
        let leaves = &self.leaves[self.files[file.index].leaves.clone()];
        let extents = self.data(file).chunks(EXTENTS_PER_LEAF);
        leaves.iter().copied().zip(extents)
    }

    /// The block of a file's extended attributes, if they have one.
    pub(super) fn attributes(&self, file: &NumberedFile) -> Option<u64> {
        self.files[file.index].attributes
    }

    /// How many blocks of a group are used. They are the group's first blocks.
    pub(super) fn used(&self, group: u64, geometry: &Geometry) -> u64 {
        let before = self.end.saturating_sub(group * GROUP_BLOCKS);
        before.clamp(geometry.overhead(group), geometry.length(group))
    }
}
