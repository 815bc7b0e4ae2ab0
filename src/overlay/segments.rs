//! A file cut into segments of 128 blocks of 4 KiB: the piece of work of every digest.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::extents::Extents;

/// The size of a block of an fs-verity tree, in bytes.
pub(super) const BLOCK: usize = 4096;

/// How many blocks a segment has: as many as the hashes that one block of the tree has room for.
pub(super) const BLOCKS: usize = BLOCK / 32;

/// The size of a segment in bytes: 512 KiB. Only a file's last one may be smaller.
pub(super) const SEGMENT: usize = BLOCK * BLOCKS;

/// A segment that has data, or is the file's last. All others are holes, and only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// How many segments without any data lie between the one before and this.
    pub(super) holes_before: u64,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// How many bytes it has.
    pub(super) length: usize,
    /// A bit for each block that has data. The others are holes, and not to be read.
    data: u128,
}

/// Neighbouring blocks of a segment that are all data or all hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Its bytes, counted from the segment's first.
    pub(super) bytes: Range<usize>,
    pub(super) is_data: bool,
}

impl Segment {
    /// A segment of data of so many bytes, no more than it has room for.
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

    /// The runs of data among them.
    pub(super) fn data_runs(self) -> impl Iterator<Item = Range<usize>> {
        self.runs().filter(|run| run.is_data).map(|run| run.bytes)
    }
}

/// The segments of a file, in order; the next extent of data is looked for when it is needed.
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

    /// Replaces what is in `batch` by the next segments, as many as there is room for; none at the end.
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
