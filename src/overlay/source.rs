//! Loads the data of a segment ([`Source`]) from a mapping or by reading, without accessing holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memmap2::{Advice, Mmap};

use super::segments::{BLOCK, SEGMENT, Segment};

/// The source of a file's bytes. Several threads may load from it at the same time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'file> {
    /// A map of the whole file, under a read lease.
    Mapped(&'file Mmap),
    /// The file itself.
    Read(&'file File),
    /// The file itself, followed by zeros if it ends early.
    Padded(&'file File),
}

impl Source<'_> {
    /// Loads the data of a segment, into `buffer` unless the file is mapped.
    ///
    /// Fails with [`io::ErrorKind::UnexpectedEof`] if the file ends early and isn't padded.
    pub(super) fn load<'a>(
        &'a self,
        segment: &Segment,
        buffer: &'a mut Vec<u8>,
    ) -> io::Result<Loaded<'a>> {
        let bytes = match self {
            Source::Mapped(map) => {
                let start = segment.offset as usize;
                for run in segment.data_runs() {
                    // This advice reads the pages and returns an error where an access would raise SIGBUS, for example
                    // on a defective disk. Kernels before 5.14 don't know it.
                    map.advise_range(Advice::PopulateRead, start + run.start, run.len())?;
                }
                &map[start..start + segment.length]
            }
            Source::Read(file) | Source::Padded(file) => {
                if buffer.len() < SEGMENT {
                    *buffer = vec![0; SEGMENT];
                }
                for run in segment.data_runs() {
                    let offset = segment.offset + run.start as u64;
                    match self {
                        Source::Padded(_) => read_padded(file, &mut buffer[run], offset)?,
                        _ => file.read_exact_at(&mut buffer[run], offset)?,
                    }
                }
                &buffer[..segment.length]
            }
        };
        Ok(Loaded {
            segment: *segment,
            bytes,
        })
    }
}

/// Fills `bytes` from the file, and with zeros from its end.
fn read_padded(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes[done..].fill(0);
    Ok(())
}

/// A segment whose data is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded<'a> {
    pub(super) segment: Segment,
    /// Only the data ranges may be read: in a hole, a buffer holds old bytes, and reading a mapping would allocate a
    /// page.
    bytes: &'a [u8],
}

impl<'a> Loaded<'a> {
    /// Bytes in memory, at most [`SEGMENT`], as the next segment.
    pub(super) fn dense(bytes: &'a [u8]) -> Loaded<'a> {
        Loaded {
            segment: Segment::dense(bytes.len()),
            bytes,
        }
    }

    /// Its data and holes, in order.
    pub(super) fn pieces(self) -> impl Iterator<Item = Piece<'a>> {
        self.segment.runs().map(move |run| match run.is_data {
            true => Piece::Data(&self.bytes[run.bytes]),
            false => Piece::Zeros(run.bytes.len() as u64),
        })
    }

    /// The blocks that have data, with their numbers in the segment. The last block of the file may be shorter than the
    /// others.
    pub(super) fn data_blocks(self) -> impl Iterator<Item = (usize, &'a [u8])> {
        self.segment.data_runs().flat_map(move |run| {
            let first = run.start / BLOCK;
            let blocks = self.bytes[run].chunks(BLOCK);
            (first..).zip(blocks)
        })
    }
}

/// A part of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece<'a> {
    Data(&'a [u8]),
    /// A hole of this many bytes.
    Zeros(u64),
}
