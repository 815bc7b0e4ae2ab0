//! Divides a file into segments of 128 blocks of 4 KiB ([`Plan`]). A segment is the unit of work of every digest.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::extents::Extents;

/// The size of a block of an fs-verity tree, in bytes.
pub(super) const BLOCK: usize = 4096;

/// How many blocks a segment has: the number of hashes that fit into one block of the fs-verity tree.
pub(super) const BLOCKS: usize = BLOCK / 32;

/// The size of a segment in bytes: 512 KiB. Only a file's last one may be smaller.
pub(super) const SEGMENT: usize = BLOCK * BLOCKS;

/// A segment that has data, or is the file's last. Segments without data are only counted (`holes_before`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// How many segments without data lie between the previous segment and this one.
    pub(super) holes_before: u64,
    /// Its offset in the file, in bytes.
    pub(super) offset: u64,
    /// Its length in bytes.
    pub(super) length: usize,
    /// One bit for each block, set if the block has data. The other blocks are holes and aren't read.
    data: u128,
}

/// A run of adjacent blocks in a segment that are all data or all holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Its byte range within the segment.
    pub(super) bytes: Range<usize>,
    pub(super) is_data: bool,
}

impl Segment {
    /// A segment of `length` bytes of data, at most [`SEGMENT`].
    pub(super) fn dense(length: usize) -> Segment {
        Segment {
            holes_before: 0,
            offset: 0,
            length,
            data: u128::MAX,
        }
    }

    pub(super) fn blocks(&self) -> usize {
        self.length.div_ceil(BLOCK)
    }

    /// All of its runs, in order.
    pub(super) fn runs(self) -> impl Iterator<Item = Run> {
        let mut block = 0;
        std::iter::from_fn(move || {
            let rest = self.data.checked_shr(block as u32)?;
            let is_data = rest & 1 == 1;
            let same = if is_data { !rest } else { rest };
            let end = (block + same.trailing_zeros() as usize).min(self.blocks());
            let bytes = block * BLOCK..(end * BLOCK).min(self.length);
            block = end;
            (!bytes.is_empty()).then_some(Run { bytes, is_data })
        })
    }

    /// The byte ranges of its data runs, in order.
    pub(super) fn data_runs(self) -> impl Iterator<Item = Range<usize>> {
        self.runs().filter(|run| run.is_data).map(|run| run.bytes)
    }
}

/// Produces the segments of a file in order. It looks up each data range only when it is needed.
#[derive(Debug)]
pub(super) struct Plan<'file> {
    extents: Extents<'file>,
    length: u64,
    /// Where the next segment begins, whether it has data or not.
    next: u64,
    /// The first extent that reaches beyond `next`.
    data: Option<Range<u64>>,
}

impl<'file> Plan<'file> {
    pub(super) fn of(file: &'file File, length: u64) -> io::Result<Plan<'file>> {
        let mut extents = Extents::of(file, length);
        Ok(Plan {
            data: extents.next().transpose()?,
            extents,
            length,
            next: 0,
        })
    }

    /// Replaces the content of `batch` by the next segments, at most `room`. `batch` is empty at the end of the file.
    pub(super) fn fill(&mut self, batch: &mut Vec<Segment>, room: usize) -> io::Result<()> {
        batch.clear();
        while batch.len() < room
            && let Some(segment) = self.segment()?
        {
            batch.push(segment);
        }
        Ok(())
    }

    fn segment(&mut self) -> io::Result<Option<Segment>> {
        const SIZE: u64 = SEGMENT as u64;
        let Some(last_byte) = self.length.checked_sub(1).filter(|last| self.next <= *last) else {
            return Ok(None);
        };
        let first_data = self.data.as_ref().map_or(last_byte, |data| data.start);
        let offset = first_data.max(self.next) / SIZE * SIZE;
        let end = (offset + SIZE).min(self.length);
        let mut bits = 0;
        while let Some(data) = &self.data
            && data.start < end
        {
            let first = (data.start.max(offset) - offset) as usize / BLOCK;
            let past = ((data.end.min(end) - offset) as usize).div_ceil(BLOCK);
            bits |= u128::MAX >> (BLOCKS - (past - first)) << first;
            if data.end > end {
                break;
            }
            self.data = self.extents.next().transpose()?;
        }
        let segment = Segment {
            holes_before: (offset - self.next) / SIZE,
            offset,
            length: (end - offset) as usize,
            data: bits,
        };
        self.next = offset + SIZE;
        Ok(Some(segment))
    }
}
