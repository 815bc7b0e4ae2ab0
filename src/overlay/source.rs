//! The bytes of a segment, mapped or read, without touching a hole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memmap2::{Advice, Mmap};

use super::segments::{BLOCK, SEGMENT, Segment};

/// Where bytes come from. Several threads may load from one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'file> {
    /// A map of the whole file, under a read lease.
    Mapped(&'file Mmap),
    /// The file itself.
    Read(&'file File),
    /// The file itself, and zeros where it ends early.
    Padded(&'file File),
}

impl Source<'_> {
    /// Makes the data of a segment available, in `buffer` unless it is mapped.
    ///
    /// A file that ends early is [`io::ErrorKind::UnexpectedEof`], unless it is padded.
    pub(super) fn load<'a>(
        &'a self,
        segment: &Segment,
        buffer: &'a mut Vec<u8>,
    ) -> io::Result<Loaded<'a>> {
        let bytes = match self {
            Source::Mapped(map) => {
                let start = segment.offset as usize;
                for run in segment.data_runs() {
                    // Brings the pages in with an error where touching them would be a SIGBUS, as on a bad disk.
                    // Kernels before 5.14 don't know the advice.
                    map.advise_range(Advice::PopulateRead, start + run.start, run.len())?;
                }
                &map[start..start + segment.length]
            }
            Source::Read(file) | Source::Padded(file) => {
                buffer.resize(SEGMENT, 0);
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

/// A segment whose data is available.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded<'a> {
    pub(super) segment: Segment,
    /// Only the data is to be touched: in a hole there is anything, or a page that would have to be made.
    bytes: &'a [u8],
}

impl<'a> Loaded<'a> {
    /// Bytes in memory, no more than a segment has, as the next segment.
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

    /// The blocks that have data, with their numbers. The file's last may be shorter than the others.
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
    /// A hole of so many bytes.
    Zeros(u64),
}
