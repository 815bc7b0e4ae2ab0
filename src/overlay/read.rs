//! All bytes of a file, in order, to whoever digests them; or an error if they weren't one state of the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::{Advice, Mmap};
use serde::{Deserialize, Serialize};

use super::file::{Stamp, open_regular};
use super::lease::Lease;
use super::segments::{Plan, Segment};
use super::source::Source;
use super::{AccessPolicy, Change, Error, Progress, Work, filesystem};
use crate::causes::Causes;

/// How the bytes of a file were reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Through a memory map, under a read lease: the kernel vouches that nobody wrote meanwhile.
    Mapped,
    /// By `pread`, with size, identity and timestamps compared before and after.
    Read,
}

/// Takes the segments of a file, in order, and loads their bytes.
pub(super) trait Sink {
    /// How many segments it takes at a time. Between two batches the lease is looked at, so this is how long a writer
    /// waits.
    fn batch(&self) -> usize;

    /// Takes the next segments. The bytes must not be kept.
    fn take(&mut self, batch: &[Segment], source: &Source<'_>) -> io::Result<()>;
}

/// A file that was read from its first byte to its last.
pub(super) struct Whole<S> {
    /// What took the bytes.
    pub(super) sink: S,
    pub(super) stamp: Stamp,
    pub(super) access: Access,
    /// What was mapped, read and skipped; nothing is counted as hashed yet.
    pub(super) work: Work,
}

/// Feeds the whole file to a new sink, made for its length; to a second one if mapping had to be given up half-way.
pub(super) fn read_whole<S: Sink>(
    path: &Path,
    policy: AccessPolicy,
    progress: &Progress,
    new_sink: impl Fn(u64) -> S,
) -> Result<Whole<S>, Error> {
    let (file, stamp) = open_regular(path)?;
    let new_pass = || Pass {
        file: &file,
        length: stamp.length,
        progress,
        sink: new_sink(stamp.length),
        data: 0,
    };
    let mapped = match policy {
        AccessPolicy::PreferMapped => read_mapped(new_pass()),
        AccessPolicy::ReadOnly => None,
    };
    let (pass, access) = match mapped {
        Some(pass) => (pass, Access::Mapped),
        None => (read_unmapped(new_pass(), path)?, Access::Read),
    };
    stamp.verify(path)?;
    let (mapped, read) = match access {
        Access::Mapped => (pass.data, 0),
        Access::Read => (0, pass.data),
    };
    Ok(Whole {
        sink: pass.sink,
        stamp,
        access,
        work: Work {
            hashed: 0,
            mapped,
            read,
            skipped: stamp.length - pass.data,
        },
    })
}

/// One walk over the file.
struct Pass<'a, S> {
    file: &'a File,
    length: u64,
    progress: &'a Progress,
    sink: S,
    /// How many bytes of data there were.
    data: u64,
}

impl<S: Sink> Pass<'_, S> {
    /// Feeds everything to the sink, or as much as `go_on`, asked after each batch, lets it. Says which.
    fn run(&mut self, source: &Source<'_>, go_on: impl Fn() -> bool) -> io::Result<bool> {
        self.progress.begin(self.length);
        let mut plan = Plan::of(self.file, self.length)?;
        let mut batch = Vec::new();
        loop {
            plan.fill(&mut batch, self.sink.batch())?;
            let Some(last) = batch.last() else {
                return Ok(true);
            };
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

/// Feeds the file through a memory map, or says no: not a lease to be had, given up because somebody waits for
/// it, or not to be mapped. No slice of the map outlives this function.
fn read_mapped<S: Sink>(mut pass: Pass<'_, S>) -> Option<Pass<'_, S>> {
    let Pass { file, length, .. } = pass;
    if length == 0 || !filesystem::is_known(file) {
        return None;
    }
    let lease = Lease::take(file)
        .inspect_err(|error| tracing::debug!(error = %Causes(error), "no read lease: reading instead of mapping"))
        .ok()?;
    // From here on nobody truncates it, but somebody might have since it was opened.
    if file.metadata().ok()?.len() != length {
        return None;
    }
    // SAFETY: a mapping must not change under the slices made of it, and must not be touched beyond the file's end
    // (SIGBUS). While the lease stands nobody has the file open for writing, so neither can happen; whoever wants
    // to waits for the lease, which is looked at after each batch. The kernel lets a writer go ahead without us
    // only after `lease-break-time` (45 s), in which a batch (16 MiB for each thread) is done thousands of times over.
    // The filesystem is one on which leases are known to hold. `map` is dropped before `lease`.
    let map = unsafe { Mmap::map(file) }.ok()?;
    let _ = map.advise(Advice::Sequential);
    match pass.run(&Source::Mapped(&map), || lease.is_held()) {
        Ok(true) => Some(pass),
        Ok(false) => {
            tracing::debug!("a writer waits for the read lease: reading instead of mapping");
            None
        }
        Err(error) => {
            tracing::debug!(error = %Causes(&error), "could not be mapped: reading will say what is wrong");
            None
        }
    }
}

fn read_unmapped<'a, S: Sink>(mut pass: Pass<'a, S>, path: &Path) -> Result<Pass<'a, S>, Error> {
    let Pass { file, length, .. } = pass;
    let read = pass.run(&Source::Read(file), || true);
    // One byte more than there should be shows that the file grew.
    let longer = read.and_then(|_| read_beyond(file, length));
    match longer {
        Ok(false) => Ok(pass),
        Ok(true) => Err(Error::changed(path, Change::Length { before: length })),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Error::changed(path, Change::Length { before: length }))
        }
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Whether the file has a byte at `length`.
fn read_beyond(file: &File, length: u64) -> io::Result<bool> {
    match file.read_exact_at(&mut [0], length) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::overlay::filesystem::known_directory;
    use crate::overlay::segments::SEGMENT;
    use crate::overlay::source::Piece;

    thread_local! {
        /// What happens, once, when the first bytes of a file have arrived.
        static MIDWAY: RefCell<Option<Box<dyn FnOnce()>>> = RefCell::default();
    }

    /// Keeps the bytes, and lets something happen after the first of them.
    #[derive(Default)]
    struct Interrupted(Vec<u8>);

    impl Sink for Interrupted {
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
            if let Some(event) = MIDWAY.take() {
                event();
            }
            Ok(())
        }
    }

    fn read(path: &Path, policy: AccessPolicy) -> Result<Whole<Interrupted>, Error> {
        read_whole(path, policy, &Progress::default(), |_| {
            Interrupted::default()
        })
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
        let result = read(path, policy);
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
        let access = || read(&path, AccessPolicy::PreferMapped).unwrap().access;
        assert_eq!(access(), Access::Mapped);
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(access(), Access::Read);
        drop(writer);
        assert_eq!(access(), Access::Mapped);
    }
}
