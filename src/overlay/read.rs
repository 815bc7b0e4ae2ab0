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
        feed(&mut sink, chunk);
        offset += chunk.len();
        if !lease.is_held() {
            tracing::debug!("a writer waits for the read lease: reading instead of mapping");
            return None;
        }
    }
    Some(sink)
}

/// Passes `chunk` on in small pieces, reading ahead one byte of each cache line of the next piece.
///
/// The processor's own prefetching stops at each page's end, and a digest waits for its input one block after the
/// other. Reading ahead takes a quarter off the time of a dense file.
fn feed<S: Update>(sink: &mut S, chunk: &[u8]) {
    const PIECE: usize = 1 << 10;
    const CACHE_LINE: usize = 64;
    let mut pieces = chunk.chunks(PIECE).peekable();
    while let Some(piece) = pieces.next() {
        if let Some(next) = pieces.peek() {
            let lines = next.iter().step_by(CACHE_LINE);
            std::hint::black_box(lines.fold(0, |seen, byte| seen ^ byte));
        }
        sink.update(piece);
    }
}

/// Large enough that system calls don't count, small enough to stay in the processor's cache.
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs::{self, OpenOptions};
    use std::io;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::overlay::filesystem::known_directory;

    thread_local! {
        /// What happens, once, when the first bytes of a file have arrived.
        static MIDWAY: RefCell<Option<Box<dyn FnOnce()>>> = RefCell::default();
    }

    /// Keeps the bytes, and lets something happen after the first of them.
    #[derive(Default)]
    struct Interrupted(Vec<u8>);

    impl Update for Interrupted {
        fn update(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
            if let Some(event) = MIDWAY.take() {
                event();
            }
        }
    }

    /// Reads a file of 3 MiB, to which `event` happens meanwhile.
    fn read_while(
        path: &Path,
        policy: AccessPolicy,
        event: impl FnOnce(PathBuf) + 'static,
    ) -> Result<Whole<Interrupted>, Error> {
        fs::write(path, content()).unwrap();
        let target = path.to_owned();
        MIDWAY.set(Some(Box::new(move || event(target))));
        let result = read_whole(path, policy);
        assert!(MIDWAY.take().is_none(), "nothing was read");
        result
    }

    fn content() -> Vec<u8> {
        (0..3_u32 << 20).map(|i| (i / 7) as u8).collect()
    }

    #[test]
    fn what_happens_meanwhile_is_seen() {
        use AccessPolicy::ReadOnly;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let whole = read_while(&path, ReadOnly, |_| ()).unwrap();
        assert!(whole.sink.0 == content());

        let check = |expected: Change, event: fn(PathBuf)| match read_while(&path, ReadOnly, event)
        {
            Err(Error::Changed { change, .. }) => assert_eq!(change, expected),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{expected:?} went unnoticed"),
        };
        let length = Change::Length { before: 3 << 20 };
        check(length, |path| File::create(path).map(drop).unwrap());
        check(length, |path| set_length(&path, (3 << 20) - 1));
        check(length, |path| set_length(&path, (3 << 20) + 1));
        check(Change::Replaced, |path| fs::remove_file(path).unwrap());
        check(Change::Replaced, |path| {
            fs::rename(&path, path.with_extension("old")).unwrap();
            fs::write(&path, content()).unwrap();
        });
        check(Change::Written, |path| {
            let far_back = std::time::UNIX_EPOCH;
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_at(b"!", 0).unwrap();
            file.set_modified(far_back).unwrap();
        });
    }

    fn set_length(path: &Path, length: u64) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(length).unwrap();
    }

    #[test]
    fn mapping_gives_way_to_a_writer() {
        let Some(directory) = known_directory() else {
            return;
        };
        let path = directory.path().join("disk");
        let whole = read_while(&path, AccessPolicy::PreferMapped, |path| {
            let error = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(path)
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        })
        .unwrap();
        assert_eq!(whole.access, Access::Read);
        assert!(whole.sink.0 == content());
    }

    #[test]
    fn a_mapped_file_that_is_cut_off_is_no_fault_and_no_digest() {
        let Some(directory) = known_directory() else {
            return;
        };
        let path = directory.path().join("disk");
        let (done, cut_off) = mpsc::channel();
        let result = read_while(&path, AccessPolicy::PreferMapped, move |path| {
            let (about_to, waiting) = mpsc::channel();
            thread::spawn(move || {
                about_to.send(()).unwrap();
                let file = File::create(path).unwrap();
                done.send(file.metadata().unwrap().len()).unwrap();
            });
            waiting.recv().unwrap();
        });
        assert_eq!(cut_off.recv_timeout(Duration::from_secs(30)), Ok(0));
        // Whether the other thread came before, during or after the rest of the reading is up to the scheduler.
        match result {
            Ok(whole) => assert!(whole.sink.0 == content()),
            Err(error) => assert!(matches!(error, Error::Changed { .. }), "{error}"),
        }
    }

    #[test]
    fn a_file_in_use_by_a_writer_is_read() {
        let Some(directory) = known_directory() else {
            return;
        };
        let path = directory.path().join("disk");
        fs::write(&path, content()).unwrap();
        let access = || {
            read_whole::<Interrupted>(&path, AccessPolicy::PreferMapped)
                .unwrap()
                .access
        };
        assert_eq!(access(), Access::Mapped);
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(access(), Access::Read);
        drop(writer);
        assert_eq!(access(), Access::Mapped);
    }
}
