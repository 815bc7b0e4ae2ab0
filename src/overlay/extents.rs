//! The ranges of a file that have data. The ranges between them are holes: they read as zeros, occupy no blocks, and
//! need no reading.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::filesystem;

/// An iterator over the data ranges in a file's first `length` bytes, in order. No range is empty.
///
/// All bytes outside these ranges read as zeros. A data range may hold only zeros, and two ranges may touch. On a
/// filesystem that is not in the list of [`filesystem::is_known`], the whole file is one range. The iterator moves the
/// offset of the open file.
///
/// The ranges are correct if no process writes to the file during the iteration, which the caller has to check. If the
/// file was truncated after `length` was read, the missing part may be reported as a hole.
#[derive(Debug)]
pub(super) struct Extents<'file> {
    file: &'file File,
    offset: u64,
    length: u64,
    /// Whether `SEEK_DATA` and `SEEK_HOLE` are known to be correct on this filesystem.
    tells: bool,
}

impl<'file> Extents<'file> {
    pub(super) fn of(file: &'file File, length: u64) -> Extents<'file> {
        Extents {
            file,
            offset: 0,
            length,
            tells: filesystem::is_known(file),
        }
    }

    fn locate(&self) -> io::Result<Option<Range<u64>>> {
        if self.offset >= self.length {
            return Ok(None);
        }
        if !self.tells {
            return Ok(Some(self.offset..self.length));
        }
        let start = match rustix::fs::seek(self.file, SeekFrom::Data(self.offset)) {
            Ok(start) => start,
            // The rest of the file is a hole.
            Err(Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let end = match rustix::fs::seek(self.file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(self.length),
            // The file was truncated between the two calls.
            Err(Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        Ok((start < end).then_some(start..end))
    }
}

impl Iterator for Extents<'_> {
    type Item = io::Result<Range<u64>>;

    /// The next range of data. After an error there are no more.
    fn next(&mut self) -> Option<Self::Item> {
        let found = self.locate().transpose();
        self.offset = match &found {
            Some(Ok(data)) => data.end,
            Some(Err(_)) | None => self.length,
        };
        found
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::overlay::filesystem::known_directory;

    /// A distance that is larger than a block of any listed filesystem.
    const APART: u64 = 1 << 20;

    #[test]
    fn data_is_told_from_holes() {
        let Some(directory) = known_directory() else {
            return;
        };
        let check = |writes: &[u64], length: u64| {
            let file = tempfile::tempfile_in(directory.path()).unwrap();
            file.set_len(length).unwrap();
            for &offset in writes {
                file.write_all_at(b"data", offset).unwrap();
            }
            let told: Vec<_> = Extents::of(&file, length).map(Result::unwrap).collect();
            let mut end = 0;
            for data in &told {
                assert!(end <= data.start && data.start < data.end && data.end <= length);
                end = data.end;
            }
            for &offset in writes {
                assert!(told.iter().any(|data| data.contains(&offset)), "{told:?}");
            }
            let data: u64 = told.iter().map(|data| data.end - data.start).sum();
            assert!(data <= writes.len() as u64 * APART / 2, "{told:?}");
        };
        check(&[], 0);
        check(&[], 1);
        check(&[], 5 * APART);
        check(&[0], 5 * APART);
        check(&[5 * APART - 4], 5 * APART);
        check(&[APART, 3 * APART], 5 * APART + 1);
    }

    #[test]
    fn only_the_length_that_was_asked_for_is_told() {
        let Some(directory) = known_directory() else {
            return;
        };
        let file = tempfile::tempfile_in(directory.path()).unwrap();
        file.write_all_at(&[1; 10_000], 0).unwrap();
        let told = |length| -> Vec<_> {
            let extents = Extents::of(&file, length).map(Result::unwrap);
            extents.map(|data| (data.start, data.end)).collect()
        };
        assert_eq!(told(5000), vec![(0, 5000)]);
        assert_eq!(told(0), vec![]);
        file.set_len(0).unwrap();
        assert_eq!(told(5000), vec![]);
    }

    #[test]
    fn where_holes_cannot_be_told_all_is_data() {
        let file = File::open("/proc/version").unwrap();
        let told: Vec<_> = Extents::of(&file, 7).map(Result::unwrap).collect();
        assert_eq!(told.first(), Some(&(0..7)));
        assert_eq!(told.len(), 1);
    }
}
