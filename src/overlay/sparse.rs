//! [`make_sparse`]: turns the blocks of a file that hold only zeros into holes.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::Error;
use super::copy::is_zero;
use super::extents::Extents;
use super::file::open_regular;

/// The smallest hole that is made, in bytes, on a boundary of its own size. A reader that skips holes makes two system
/// calls for each data range, so smaller holes would cost more time than they save.
const GRAIN: u64 = 64 << 10;

/// Makes holes where the file at `path` has only zeros, in units of 64 KiB, and returns the number of bytes that became
/// holes. The file's content and length, and so its digests, stay the same. On a filesystem without holes nothing
/// changes, and the result is 0.
///
/// A VMM writes all of a guest's memory into a snapshot, although the guest may never have used most of it. At a
/// restore, v53.0 reads only the data ranges (`vmm/src/memory_manager.rs`, `fill_saved_regions`), and a digest skips
/// holes too. No other process may write to the file during the call.
///
/// # Errors
///
/// [`Error::NotRegular`], [`Error::Io`]. The content of the file is unchanged even then.
pub fn make_sparse(path: &Path) -> Result<u64, Error> {
    let (_, status) = open_regular(path)?;
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(Error::io("open", path))?;
    let freed = punch_zeros(&file, status.length);
    freed.map_err(Error::io("make holes in", path))
}

fn punch_zeros(file: &File, length: u64) -> io::Result<u64> {
    let mut buffer = vec![0; GRAIN as usize];
    let mut freed = 0;
    // Adjacent zero blocks become one hole.
    let mut zeros = 0..0;
    for data in Extents::of(file, length) {
        let data = data?;
        let mut at = data.start;
        while at < data.end {
            let end = (at / GRAIN + 1) * GRAIN;
            let end = end.min(data.end);
            let bytes = &mut buffer[..(end - at) as usize];
            file.read_exact_at(bytes, at)?;
            if is_zero(bytes) {
                if zeros.end != at {
                    freed += punch(file, &zeros)?;
                    zeros.start = at;
                }
                zeros.end = end;
            }
            at = end;
        }
    }
    Ok(freed + punch(file, &zeros)?)
}

/// Makes a hole of `zeros`, and returns its size, or 0 if the filesystem has no holes.
fn punch(file: &File, zeros: &Range<u64>) -> io::Result<u64> {
    let size = zeros.end - zeros.start;
    if size == 0 {
        return Ok(0);
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, zeros.start, size) {
        Ok(()) => Ok(size),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::overlay::filesystem::known_directory;

    #[test]
    fn zeros_become_holes_and_the_bytes_stay() {
        let Some(directory) = known_directory() else {
            return;
        };
        let path = directory.path().join("memory");
        let grain = GRAIN as usize;
        #[track_caller]
        fn check(path: &Path, bytes: &[u8], freed: u64) {
            fs::write(path, bytes).unwrap();
            let before = fs::metadata(path).unwrap().blocks();
            assert_eq!(make_sparse(path).unwrap(), freed);
            assert!(fs::read(path).unwrap() == bytes);
            let after = fs::metadata(path).unwrap().blocks();
            assert!(after <= before - freed / 512, "{before} to {after}");
            assert_eq!(make_sparse(path).unwrap(), 0, "the second time");
        }
        check(&path, &[], 0);
        check(&path, &vec![1; 3 * grain], 0);
        check(&path, &vec![0; 8 * grain], 8 * GRAIN);
        // A byte that isn't zero keeps its own unit from becoming a hole, and no other.
        for at in [0, grain - 1, grain, 3 * grain + 5, 8 * grain - 1] {
            let mut bytes = vec![0; 8 * grain];
            bytes[at] = 1;
            check(&path, &bytes, 7 * GRAIN);
        }
        // A shorter unit at the end of the file becomes a hole too.
        let mut bytes = vec![0; 2 * grain + 8192];
        bytes[grain] = 1;
        check(&path, &bytes, GRAIN + 8192);
    }

    #[test]
    fn a_device_is_refused() {
        let error = make_sparse(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(error, Error::NotRegular { .. }), "{error}");
    }
}
