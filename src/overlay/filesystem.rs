//! The list of filesystems on which read leases and hole detection are known to work. Mapping and sparse copies depend
//! on both.

use std::os::fd::AsFd;

const EXT: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683e;
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// Whether `file` lies on ext4 (2, 3), xfs, btrfs or tmpfs.
///
/// On these filesystems a read lease keeps writers out, and `SEEK_DATA` and `SEEK_HOLE` are correct. On a network or
/// user-space filesystem a lease doesn't restrain the server. Other filesystems were not checked.
pub(super) fn is_known(file: impl AsFd) -> bool {
    matches!(kind(file), Some(EXT | XFS | BTRFS | TMPFS))
}

/// Whether the bytes of `file` are kept in memory: the file lies on tmpfs or ramfs, or is a memory file
/// (`memfd_create(2)`).
pub(super) fn is_memory(file: impl AsFd) -> bool {
    matches!(kind(file), Some(TMPFS | RAMFS))
}

fn kind(file: impl AsFd) -> Option<u64> {
    let status = rustix::fs::fstatfs(file).ok()?;
    // The type of the field depends on the platform, and may be signed.
    #[expect(
        clippy::cast_lossless,
        reason = "the width of the field depends on the platform"
    )]
    Some((status.f_type as u32) as u64)
}

/// A new directory on a filesystem for which [`is_known`] is true. Prints a line and returns `None` if there is no such
/// writable filesystem, as in a container on overlayfs.
#[cfg(test)]
#[expect(clippy::print_stdout, reason = "it says that a test was skipped")]
pub(super) fn known_directory() -> Option<tempfile::TempDir> {
    let places = [std::env::temp_dir(), "/dev/shm".into()];
    let found = places.iter().find_map(|place| {
        let directory = tempfile::tempdir_in(place).ok()?;
        let known = std::fs::File::open(directory.path()).is_ok_and(is_known);
        known.then_some(directory)
    });
    if found.is_none() {
        println!("skipped: no temporary directory on ext4, xfs, btrfs or tmpfs");
    }
    found
}
