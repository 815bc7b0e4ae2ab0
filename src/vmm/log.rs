//! The log of a VMM: a file that the process appends to and whose end goes into errors.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// How much of the end of a log is kept, in bytes.
const TAIL: u64 = 16 * 1024;

/// The open log of a VMM. It can be read after the file was unlinked.
#[derive(Debug)]
pub(super) struct Log(File);

impl Log {
    /// Creates the log, for this user only.
    pub(super) fn create(path: &Path) -> io::Result<Log> {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map(Log)
    }

    /// Opens the log that another agent's VMM wrote.
    pub(super) fn open(path: &Path) -> io::Result<Log> {
        File::open(path).map(Log)
    }

    /// A descriptor for the process to append to.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// The last 16 KiB as text, cut at the start of a line where there is one; empty when it can't be read.
    pub(super) fn tail(&self) -> String {
        match self.read_tail() {
            Ok(tail) => tail,
            Err(error) => {
                tracing::debug!(%error, "the log of the VMM can't be read");
                String::new()
            }
        }
    }

    fn read_tail(&self) -> io::Result<String> {
        let length = self.0.metadata()?.len();
        let start = length.saturating_sub(TAIL);
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        // The file may grow meanwhile: read what was its end, and no more.
        while (bytes.len() as u64) < length - start {
            match self.0.read_at(&mut chunk, start + bytes.len() as u64)? {
                0 => break,
                read => bytes.extend_from_slice(&chunk[..read]),
            }
        }
        bytes.truncate(TAIL as usize);
        let line = match bytes.iter().position(|&byte| byte == b'\n') {
            Some(newline) if start > 0 => &bytes[newline + 1..],
            _ => &bytes[..],
        };
        Ok(String::from_utf8_lossy(line).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{Log, TAIL};

    #[test]
    fn the_tail_is_bounded_and_starts_with_a_whole_line() {
        fn check(content: &[u8], expected: &str) {
            let dir = tempfile::tempdir().unwrap();
            let log = Log::create(&dir.path().join("vmm.log")).unwrap();
            log.writer().unwrap().write_all(content).unwrap();
            assert_eq!(log.tail(), expected);
        }

        check(b"", "");
        check(b"one line", "one line");
        check(b"not \xff text\n", "not \u{fffd} text\n");
        let exact = "x".repeat(TAIL as usize);
        check(exact.as_bytes(), &exact);
        check(
            format!("first\n{}", &exact[6..]).as_bytes(),
            &format!("first\n{}", &exact[6..]),
        );
        check(
            format!("cut\nsecond\n{}", &exact[9..]).as_bytes(),
            &format!("second\n{}", &exact[9..]),
        );
    }

    #[test]
    fn the_tail_can_be_read_after_the_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(&dir.path().join("vmm.log")).unwrap();
        log.writer().unwrap().write_all(b"last words").unwrap();
        drop(dir);
        assert_eq!(log.tail(), "last words");
    }
}
