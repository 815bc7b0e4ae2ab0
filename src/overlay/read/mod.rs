//! Feeds all bytes of a file, in order, to a [`Sink`] that digests them. Fails if the file's length changes during the
//! reading.

mod error;
#[cfg(test)]
pub(super) mod test_events;

use std::fs::File;
use std::io;

use memmap2::{Advice, Mmap};

use super::file::reopen;
use super::lease::Lease;
use super::segments::{Plan, Segment};
use super::source::Source;
use super::{AccessPolicy, Basis, Progress, Work};
use crate::causes::Causes;
pub(super) use error::{ReadError, check_length};

/// Takes the segments of a file, in order, and loads their bytes.
pub(super) trait Sink {
    /// How many segments it takes at a time. The lease is checked after each batch, so the time for a batch is the time
    /// that a writer waits.
    fn batch(&self) -> usize;

    /// Takes the next segments. It must not keep references to the bytes.
    fn take(&mut self, batch: &[Segment], source: &Source<'_>) -> io::Result<()>;
}

/// A file that was read from its first byte to its last.
pub(super) struct Whole<S> {
    /// The sink that received the bytes.
    pub(super) sink: S,
    pub(super) basis: Basis,
    /// The bytes that were mapped, read and skipped. `hashed` is still 0.
    pub(super) work: Work,
}

/// Feeds a file of `length` bytes to a new sink. If the mapping has to be given up during the work, starts again with
/// another new sink and reads the file.
pub(super) fn read_whole<S: Sink>(
    file: &File,
    length: u64,
    policy: AccessPolicy,
    progress: &Progress,
    new_sink: impl Fn() -> S,
) -> Result<Whole<S>, ReadError> {
    let new_pass = || Pass {
        file,
        length,
        progress,
        sink: new_sink(),
        data: 0,
    };
    let mapped = match policy {
        AccessPolicy::PreferMapped => read_mapped(new_pass()),
        AccessPolicy::ReadOnly => None,
    };
    let (pass, basis) = match mapped {
        Some(pass) => (pass, Basis::Mapped),
        None => (read_unmapped(new_pass())?, Basis::Read),
    };
    Ok(pass.finish(basis))
}

/// Feeds exactly `length` bytes of a file to `sink`: the file's bytes, and zeros beyond its end.
pub(super) fn read_padded<S: Sink>(file: &File, length: u64, sink: S) -> io::Result<Whole<S>> {
    let mut pass = Pass {
        file,
        length,
        progress: &Progress::default(),
        sink,
        data: 0,
    };
    pass.run(&Source::Padded(file), || true)?;
    Ok(pass.finish(Basis::Read))
}

/// One pass over the file.
struct Pass<'a, S> {
    file: &'a File,
    length: u64,
    progress: &'a Progress,
    sink: S,
    /// The number of bytes outside holes so far.
    data: u64,
}

impl<S: Sink> Pass<'_, S> {
    fn finish(self, basis: Basis) -> Whole<S> {
        let (mapped, read) = match basis {
            Basis::Mapped => (self.data, 0),
            _ => (0, self.data),
        };
        Whole {
            sink: self.sink,
            basis,
            work: Work {
                hashed: 0,
                mapped,
                read,
                skipped: self.length - self.data,
            },
        }
    }

    /// Feeds the file to the sink. Stops early if `go_on`, which is called after each batch, returns false. Returns
    /// whether the whole file was fed.
    fn run(&mut self, source: &Source<'_>, go_on: impl Fn() -> bool) -> io::Result<bool> {
        self.progress.begin(self.length);
        let mut plan = Plan::of(self.file, self.length)?;
        let mut batch = Vec::new();
        loop {
            plan.fill(&mut batch, self.sink.batch())?;
            let Some(last) = batch.last() else {
                return Ok(true);
            };
            #[cfg(test)]
            test_events::happen();
            self.sink.take(&batch, source)?;
            let runs = batch.iter().flat_map(|segment| segment.data_runs());
            self.data += runs.map(|run| run.len() as u64).sum::<u64>();
            self.progress.reach(last.offset + last.length as u64);
            if !go_on() {
                return Ok(false);
            }
        }
    }
}

/// Feeds the file to the sink through a memory map. Returns `None` if no lease is granted, if the lease was given up
/// because a writer waits for it, or if the file can't be mapped. No slice of the map outlives this function.
fn read_mapped<S: Sink>(mut pass: Pass<'_, S>) -> Option<Pass<'_, S>> {
    let Pass { file, length, .. } = pass;
    if length == 0 {
        return None;
    }
    // A lease belongs to one open file description, and the caller's may have a lease already.
    let file = &reopen(file)
        .inspect_err(
            |error| tracing::debug!(error = %Causes(error), "could not open the file again"),
        )
        .ok()?;
    let lease = Lease::take(file)
        .inspect_err(|error| tracing::debug!(error = %Causes(error), "no lease was granted: the file is not mapped"))
        .ok()?;
    // From here on no process truncates the file, but one might have truncated it since it was opened.
    if file.metadata().ok()?.len() != length {
        return None;
    }
    // SAFETY: a mapping must not change under the slices made of it, and must not be touched beyond the file's end
    // (SIGBUS). While the lease stands no process has the file open for writing, so neither can happen; A process that
    // opens it for writing waits for the lease, which is checked after each batch. The kernel revokes the lease only
    // after `lease-break-time` (45 s), and a batch (16 MiB for each thread) takes a few milliseconds. The filesystem is
    // one on which leases are known to hold. `map` is dropped before `lease`.
    let map = unsafe { Mmap::map(file) }.ok()?;
    let _ = map.advise(Advice::Sequential);
    match pass.run(&Source::Mapped(&map), || lease.is_held()) {
        Ok(true) => Some(pass),
        Ok(false) => {
            tracing::debug!("a writer waits for the read lease: reading instead of mapping");
            None
        }
        Err(error) => {
            tracing::debug!(error = %Causes(&error), "could not read the file through its mapping: reading it without one");
            None
        }
    }
}

fn read_unmapped<S: Sink>(mut pass: Pass<'_, S>) -> Result<Pass<'_, S>, ReadError> {
    let Pass { file, length, .. } = pass;
    pass.run(&Source::Read(file), || true)
        .map_err(|error| ReadError::of_reading(error, file, length))?;
    check_length(file, length)?;
    Ok(pass)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::overlay::filesystem::known_directory;
    use crate::overlay::segments::SEGMENT;
    use crate::overlay::source::Piece;

    /// A sink that keeps the bytes.
    #[derive(Default)]
    struct Kept(Vec<u8>);

    impl Sink for Kept {
        fn batch(&self) -> usize {
            1
        }

        fn take(&mut self, batch: &[Segment], source: &Source<'_>) -> io::Result<()> {
            let mut buffer = Vec::new();
            for segment in batch {
                let hole = segment.holes_before as usize * SEGMENT;
                self.0.resize(self.0.len() + hole, 0);
                for piece in source.load(segment, &mut buffer)?.pieces() {
                    match piece {
                        Piece::Data(bytes) => self.0.extend_from_slice(bytes),
                        Piece::Zeros(count) => self.0.resize(self.0.len() + count as usize, 0),
                    }
                }
            }
            Ok(())
        }
    }

    fn read(path: &Path, policy: AccessPolicy) -> Result<Whole<Kept>, ReadError> {
        let file = File::open(path).unwrap();
        let length = file.metadata().unwrap().len();
        read_whole(&file, length, policy, &Progress::default(), || {
            Kept::default()
        })
    }

    /// Reads a file of 3 MiB, and runs `event` on it during the reading.
    fn read_while(
        path: &Path,
        policy: AccessPolicy,
        event: impl FnOnce(PathBuf) + 'static,
    ) -> Result<Whole<Kept>, ReadError> {
        fs::write(path, content()).unwrap();
        let target = path.to_owned();
        test_events::schedule(1, move || event(target));
        let result = read(path, policy);
        test_events::assert_happened();
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

        let check = |expected: u64, event: fn(PathBuf)| match read_while(&path, ReadOnly, event) {
            Err(ReadError::Length { found }) => assert_eq!(found, expected),
            Err(ReadError::Io(error)) => panic!("{error}"),
            Ok(_) => panic!("{expected} bytes went unnoticed"),
        };
        const LENGTH: u64 = 3 << 20;
        check(0, |path| File::create(path).map(drop).unwrap());
        check(LENGTH - 1, |path| set_length(&path, LENGTH - 1));
        check(LENGTH + 1, |path| set_length(&path, LENGTH + 1));
    }

    #[test]
    fn the_file_that_was_opened_is_read_whatever_has_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        for policy in [AccessPolicy::ReadOnly, AccessPolicy::PreferMapped] {
            let events: [fn(PathBuf); 2] = [
                |path| fs::remove_file(path).unwrap(),
                |path| {
                    fs::rename(&path, path.with_extension("old")).unwrap();
                    fs::write(&path, "another").unwrap();
                },
            ];
            for event in events {
                let whole = read_while(&path, policy, event).unwrap();
                assert!(whole.sink.0 == content());
            }
        }
    }

    #[test]
    fn exactly_as_many_bytes_as_asked_for_are_padded_or_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        fs::write(&path, content()).unwrap();
        let file = File::open(&path).unwrap();
        for length in [
            0,
            1,
            4095,
            4096,
            4097,
            (3 << 20) - 1,
            3 << 20,
            (3 << 20) + 1,
            5 << 20,
        ] {
            let mut expected = content();
            expected.resize(length, 0);
            let whole = read_padded(&file, length as u64, Kept::default()).unwrap();
            assert!(whole.sink.0 == expected, "{length}");
        }
        // The file is truncated during the reading: the rest counts as zeros.
        test_events::schedule(1, move || set_length(&path, 5000));
        let whole = read_padded(&file, 3 << 20, Kept::default()).unwrap();
        test_events::assert_happened();
        assert_eq!(whole.sink.0.len(), 3 << 20);
        assert!(whole.sink.0[..SEGMENT] == content()[..SEGMENT]);
        assert!(whole.sink.0[SEGMENT..].iter().all(|byte| *byte == 0));
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
        assert_eq!(whole.basis, Basis::Read);
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
        // The scheduler decides whether the other thread truncates the file before, during or after the rest of the
        // reading.
        match result {
            Ok(whole) => assert!(whole.sink.0 == content()),
            Err(error) => assert!(matches!(error, ReadError::Length { .. }), "{error:?}"),
        }
    }

    #[test]
    fn a_file_in_use_by_a_writer_is_read() {
        let Some(directory) = known_directory() else {
            return;
        };
        let path = directory.path().join("disk");
        fs::write(&path, content()).unwrap();
        let basis = || read(&path, AccessPolicy::PreferMapped).unwrap().basis;
        assert_eq!(basis(), Basis::Mapped);
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(basis(), Basis::Read);
        drop(writer);
        assert_eq!(basis(), Basis::Mapped);
    }
}
