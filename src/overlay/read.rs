//! All bytes of a file, in order, to whoever digests them; or an error if they weren't one state of the file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::{Advice, Mmap};
use serde::{Deserialize, Serialize};
use sha2::digest::Update;

use super::file::{Stamp, open_regular};
use super::lease::Lease;
use super::{AccessPolicy, Change, Error, filesystem};

/// How the bytes of a file were reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Through a memory map, under a read lease: the kernel vouches that nobody wrote meanwhile.
    Mapped,
    /// By `pread`, with size, identity and timestamps compared before and after.
    Read,
}

/// A file that was read from its first byte to its last.
pub(super) struct Whole<S> {
    /// What took the bytes.
    pub(super) sink: S,
    pub(super) stamp: Stamp,
    pub(super) access: Access,
}

/// Feeds the whole file to a new `S`; to a second one if mapping had to be given up half-way.
pub(super) fn read_whole<S: Default + Update>(
    path: &Path,
    policy: AccessPolicy,
) -> Result<Whole<S>, Error> {
    let (file, stamp) = open_regular(path)?;
    let mapped = match policy {
        AccessPolicy::PreferMapped => read_mapped(&file, stamp.length),
        AccessPolicy::ReadOnly => None,
    };
    let (sink, access) = match mapped {
        Some(sink) => (sink, Access::Mapped),
        None => (read_unmapped(&file, path, stamp.length)?, Access::Read),
    };
    stamp.verify(path)?;
    Ok(Whole {
        sink,
        stamp,
        access,
    })
}

/// How much is mapped in and digested between two looks at the lease: a writer waits no longer than this takes, and
/// it bounds what one call of the kernel does.
const MAPPED_CHUNK: usize = 2 << 20;

/// Feeds the file through a memory map, or says no: not a lease to be had, given up because somebody waits for
/// it, or not to be mapped. No slice of the map outlives this function.
fn read_mapped<S: Default + Update>(file: &File, length: u64) -> Option<S> {
    if length == 0 || !filesystem::is_known(file) {
        return None;
    }
    let lease = Lease::take(file)
        .inspect_err(|error| tracing::debug!(%error, "no read lease: reading instead of mapping"))
        .ok()?;
    // From here on nobody truncates it, but somebody might have since it was opened.
    if file.metadata().ok()?.len() != length {
        return None;
    }
    // SAFETY: a mapping must not change under the slices made of it, and must not be touched beyond the file's end
    // (SIGBUS). While the lease stands nobody has the file open for writing, so neither can happen; whoever wants
    // to waits for the lease, which is looked at after each chunk. The kernel lets a writer go ahead without us
    // only after `lease-break-time` (45 s), in which a chunk of 2 MiB is done thousands of times over. The
    // filesystem is one on which leases are known to hold. `map` is dropped before `lease`.
    let map = unsafe { Mmap::map(file) }.ok()?;
    let _ = map.advise(Advice::Sequential);
    let mut sink = S::default();
    let mut offset = 0;
    for chunk in map.chunks(MAPPED_CHUNK) {
        // Brings the pages in with an error where touching them would be a SIGBUS, as on a bad disk; reading will
        // then say what is wrong. Kernels before 5.14 don't know the advice, and there the file is read.
        map.advise_range(Advice::PopulateRead, offset, chunk.len())
            .ok()?;
        sink.update(chunk);
        offset += chunk.len();
        if !lease.is_held() {
            tracing::debug!("a writer waits for the read lease: reading instead of mapping");
            return None;
        }
    }
    Some(sink)
}

const READ_BUFFER: usize = 256 << 10;

fn read_unmapped<S: Default + Update>(file: &File, path: &Path, length: u64) -> Result<S, Error> {
    let mut sink = S::default();
    let mut buffer = vec![0; READ_BUFFER];
    let mut offset = 0;
    loop {
        // One byte more than there should be shows whether the file grew.
        let wanted = (length - offset).saturating_add(1).min(READ_BUFFER as u64);
        let count = match file.read_at(&mut buffer[..wanted as usize], offset) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        match (offset + count as u64, count) {
            (end, 0) if end == length => return Ok(sink),
            (end, 1..) if end <= length => {
                sink.update(&buffer[..count]);
                offset = end;
            }
            _ => return Err(Error::changed(path, Change::Length { before: length })),
        }
    }
}
