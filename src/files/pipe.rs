//! [`read_file_or_pipe`] also reads from a pipe, within a time limit.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bounded::read_within;
use super::{ReadError, Symlinks, open_for_reading};

/// The time that the writer of a pipe has until it must have closed the pipe.
const PIPE_LIMIT: Duration = Duration::from_secs(5);

/// Reads the whole file at `path`, which may have at most `limit` bytes. The path may lead to a pipe, as a shell's
/// `<(command)` does. If the writer of the pipe doesn't close it within 5 seconds, the read fails with `TimedOut`. A
/// regular file is read without waiting.
///
/// # Errors
///
/// [`ReadError::Failed`] and [`ReadError::TooLarge`].
pub(crate) fn read_file_or_pipe(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    read_until(path, limit, PIPE_LIMIT)
}

fn read_until(path: &Path, limit: u64, wait: Duration) -> Result<Vec<u8>, ReadError> {
    let file = open_for_reading(path, Symlinks::Follow).map_err(ReadError::failed("open"))?;
    let metadata = file.metadata().map_err(ReadError::failed("examine"))?;
    let until = Instant::now() + wait;
    read_within(TimedFile { file, wait, until }, metadata.len(), limit)
}

/// A file or a pipe that is read until a deadline.
struct TimedFile {
    file: File,
    wait: Duration,
    until: Instant,
}

impl Read for TimedFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        // Polls first: a read of a pipe that has no writer yet would return 0 bytes, which means the end of the file.
        match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&left))? {
            0 => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "its writer did not close it within {} s",
                    self.wait.as_secs()
                ),
            )),
            _ => self.file.read(into),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;
    use std::thread;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn fifo() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        (directory, path)
    }

    #[test]
    fn a_pipe_is_read_until_its_writer_closes_it() {
        let check = |length: usize, limit: u64, is_accepted: bool| {
            let (_directory, path) = fifo();
            let content = vec![b'x'; length];
            let written = content.clone();
            let to = path.clone();
            let writer = thread::spawn(move || {
                let mut pipe = File::options().write(true).open(to).unwrap();
                // If the limit is exceeded, the reader closes the pipe before it has read everything.
                let _ = pipe.write_all(&written);
            });
            match read_file_or_pipe(&path, limit) {
                Ok(bytes) => assert!(is_accepted && bytes == content, "{length} of {limit}"),
                Err(ReadError::TooLarge { size, .. }) => {
                    assert!(!is_accepted && size == limit + 1, "{length} of {limit}");
                }
                Err(error) => panic!("{length} of {limit}: {error:?}"),
            }
            writer.join().unwrap();
        };
        check(0, 10, true);
        check(10, 10, true);
        check(11, 10, false);
        check(200_000, 200_000, true);
        check(200_001, 200_000, false);
    }

    #[test]
    fn a_pipe_without_a_writer_is_given_up() {
        let (_directory, path) = fifo();
        let error = read_until(&path, 10, Duration::from_millis(20)).unwrap_err();
        let error = io::Error::from(error);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn files_are_read_and_a_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(read_file_or_pipe(&path, 10).unwrap(), b"0123456789");
        let error = read_file_or_pipe(&path, 9).unwrap_err();
        assert!(
            matches!(error, ReadError::TooLarge { size: 10, limit: 9 }),
            "{error:?}"
        );
        let error = read_file_or_pipe(directory.path(), 1 << 20).unwrap_err();
        let error = io::Error::from(error);
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory, "{error}");
        assert_eq!(read_file_or_pipe("/dev/null".as_ref(), 1).unwrap(), b"");
        let error = read_file_or_pipe("/dev/zero".as_ref(), 1).unwrap_err();
        assert!(
            matches!(error, ReadError::TooLarge { size: 2, .. }),
            "{error:?}"
        );
    }
}
