//! Reads which parts of a file a VMM has mapped, from the kernel's list `/proc/<pid>/maps` ([`Process::mappings`]).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use memmap2::MmapOptions;

use super::{Error, Process, procfs};
use crate::overlay::ImmutableFile;

/// The most that is read of a process's `maps`, in bytes. It is enough for some 100,000 mappings; the kernel allows
/// 65,530 by default.
const MAX_BYTES: u64 = 16 << 20;

/// A file as the kernel identifies it in lists of mappings: by its device and inode.
///
/// The device is determined by mapping the file, because on btrfs the list shows another device than `stat(2)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedFile {
    /// The major and minor number, as in the list.
    device: String,
    inode: u64,
}

/// A range of a process's addresses to which a file is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mapping {
    /// The first address of the range.
    pub start: u64,
    /// The first address after the range.
    pub end: u64,
    /// The offset in the file, in bytes, of the byte at `start`.
    pub offset: u64,
    /// Whether the mapping is private (`MAP_PRIVATE`), so that the process's writes don't reach the file.
    pub private: bool,
}

impl MappedFile {
    /// Determines how the kernel identifies `file` in lists of mappings. The file must not be empty.
    ///
    /// # Errors
    ///
    /// Those of `mmap(2)` and of reading `/proc/self/maps`.
    pub fn of(file: &ImmutableFile) -> io::Result<MappedFile> {
        // SAFETY: the file is immutable, so its bytes can't change and it can't be truncated while it is mapped. Only
        // the address of the mapping is used.
        let map = unsafe {
            MmapOptions::new()
                .len(1)
                .map_copy_read_only(file.as_fd().as_raw_fd())
        }?;
        let address = map.as_ptr() as u64;
        let mut found = None;
        each_line("/proc/self/maps".as_ref(), |line| {
            if let Some(line) = Line::parse(line)
                && line.mapping.start <= address
                && address < line.mapping.end
            {
                found = Some(line.file());
            }
        })?;
        drop(map);
        found.ok_or_else(|| io::Error::other("the mapping is not in the list of mappings"))
    }
}

impl Process {
    /// Returns every mapping of `file` in the process.
    ///
    /// # Errors
    ///
    /// [`Error::ProcessEnded`] and [`Error::Inspect`], as for [`open_files`](Process::open_files).
    pub fn mappings(&self, file: &MappedFile) -> Result<Vec<Mapping>, Error> {
        self.inspect("maps", || {
            let mut mappings = Vec::new();
            each_line(&procfs::directory(self.pid()).join("maps"), |line| {
                if let Some(line) = Line::parse(line)
                    && line.inode == file.inode
                    && line.device == file.device
                {
                    mappings.push(line.mapping);
                }
            })?;
            Ok(mappings)
        })
    }
}

/// A line of `/proc/<pid>/maps`.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    mapping: Mapping,
    device: &'a str,
    inode: u64,
}

impl Line<'_> {
    /// Parses a line `start-end perms offset major:minor inode    path`. All numbers but the inode are hexadecimal.
    fn parse(line: &str) -> Option<Line<'_>> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?;
        let offset = fields.next()?;
        let device = fields.next()?;
        let inode = fields.next()?.parse().ok()?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        Some(Line {
            mapping: Mapping {
                start: hex(start)?,
                end: hex(end)?,
                offset: hex(offset)?,
                private: permissions.as_bytes().get(3) == Some(&b'p'),
            },
            device,
            inode,
        })
    }

    fn file(&self) -> MappedFile {
        MappedFile {
            device: self.device.to_owned(),
            inode: self.inode,
        }
    }
}

/// Calls `each` with every line of a list of mappings. A path in the list may contain any byte but a newline.
fn each_line(path: &Path, mut each: impl FnMut(&str)) -> io::Result<()> {
    let mut lines = BufReader::new(File::open(path)?.take(MAX_BYTES));
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        each(&String::from_utf8_lossy(&line));
        line.clear();
    }
    match lines.into_inner().limit() {
        0 => Err(io::Error::other("the list of mappings is too long")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_path() {
        let check = |line: &str, expected: Option<(u64, u64, u64, bool, &str, u64)>| {
            let read = Line::parse(line).map(|line| {
                let Mapping {
                    start,
                    end,
                    offset,
                    private,
                } = line.mapping;
                (start, end, offset, private, line.device, line.inode)
            });
            assert_eq!(read, expected, "{line}");
        };
        check(
            "7f00-8f00 rw-p 00001000 00:01 42    /memfd:golden memory (deleted)\n",
            Some((0x7f00, 0x8f00, 0x1000, true, "00:01", 42)),
        );
        check(
            "7f00-8f00 r--s 00000000 fd:1a 0 \n",
            Some((0x7f00, 0x8f00, 0, false, "fd:1a", 0)),
        );
        check("7f00 rw-p 0 00:01 42", None);
        check("7f00-8f00 rw-p 0 00:01 x", None);
        check("7f00-8f00 rw-p 0 00:01", None);
        check("", None);
    }

    #[test]
    fn a_file_is_found_among_the_mappings_of_this_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, [7; 3 * 4096]).unwrap();
        let file = ImmutableFile::seal(&path).unwrap();
        let other = MappedFile::of(&ImmutableFile::seal(&path).unwrap()).unwrap();
        let name = MappedFile::of(&file).unwrap();
        assert_ne!(name, other);
        let me = Process::open(std::process::id(), 0).unwrap();
        assert_eq!(me.mappings(&name).unwrap(), []);
        // SAFETY: the file is immutable.
        let map = unsafe {
            MmapOptions::new()
                .offset(4096)
                .map_copy(file.as_fd().as_raw_fd())
        }
        .unwrap();
        let start = map.as_ptr() as u64;
        let expected = Mapping {
            start,
            end: start + 2 * 4096,
            offset: 4096,
            private: true,
        };
        assert_eq!(me.mappings(&name).unwrap(), [expected]);
    }
}
