//! [`Log`]: a file of bounded size with the output of a VMM or of its guest's console. Errors show its end.
//!
//! The VMM writes to a pipe, and this process to the file, since otherwise a hostile guest could fill the disk. The
//! file keeps the first and the last part of the output, and the number of bytes that were left out between them.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use crate::causes::Causes;
use crate::files::{Symlinks, new_private, open_regular};
use crate::mutex::lock;
use crate::sanitize;

/// How much of the end of the output is kept when the file is shortened, in bytes.
const TAIL: u64 = 16 * 1024;

/// How much of the beginning of the output is kept, in bytes.
const HEAD: u64 = 256 * 1024;

/// The length in bytes above which the file is shortened.
const LIMIT: u64 = 1024 * 1024;

/// An open log. It can be read after the file was unlinked.
#[derive(Debug)]
pub(in crate::vmm) struct Log(Mutex<Content>);

#[derive(Debug)]
struct Content {
    file: File,
    /// The number of bytes that were left out.
    left_out: u64,
    /// Whether writing to the file has failed. The failure is logged only once.
    broken: bool,
}

/// Returns the end of a log that another process wrote, in the form of [`Log::tail`].
pub(crate) fn tail_of(path: &Path) -> io::Result<String> {
    let (file, _) = open_regular(path, Symlinks::Refuse)?;
    Ok(Log::of(file).tail())
}

impl Log {
    /// Creates the log's file, with mode 0600.
    pub(in crate::vmm) fn create(path: &Path) -> io::Result<Log> {
        let file = new_private().read(true).append(true).open(path);
        file.map(Log::of)
    }

    fn of(file: File) -> Log {
        Log(Mutex::new(Content {
            file,
            left_out: 0,
            broken: false,
        }))
    }

    /// Adds bytes to the log. If the file can't be written to, the VMM goes on without its log.
    pub(in crate::vmm) fn append(&self, bytes: &[u8]) {
        let mut content = self.lock();
        if let Err(error) = content.append(bytes)
            && !content.broken
        {
            content.broken = true;
            tracing::warn!(error = %Causes(&error), "cannot write to a log of a VMM");
        }
    }

    /// Returns the last 16 KiB as text that is [safe to show](sanitize::lines), from the start of a line if there is
    /// one. Returns an empty text if the file can't be read.
    pub(in crate::vmm) fn tail(&self) -> String {
        let read = self.lock().read_tail();
        let (tail, is_whole) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(error = %Causes(&error), "a log of the VMM can't be read");
                return String::new();
            }
        };
        let line = match tail.iter().position(|&byte| byte == b'\n') {
            Some(newline) if !is_whole => &tail[newline + 1..],
            _ => &tail[..],
        };
        sanitize::lines(&String::from_utf8_lossy(line))
    }

    /// Ignores poisoning: after a panic the log may lack some output, but it can still be used.
    fn lock(&self) -> MutexGuard<'_, Content> {
        lock(&self.0)
    }
}

impl Content {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        let length = self.file.metadata()?.len();
        if length <= LIMIT {
            return Ok(());
        }
        let (tail, _) = self.read_tail()?;
        self.left_out += length - HEAD - tail.len() as u64;
        self.file.set_len(HEAD)?;
        write!(self.file, "\n[{} bytes left out]\n", self.left_out)?;
        self.file.write_all(&tail)
    }

    /// Returns the last 16 KiB, and whether they are the whole file.
    fn read_tail(&self) -> io::Result<(Vec<u8>, bool)> {
        let length = self.file.metadata()?.len();
        let start = length.saturating_sub(TAIL);
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        // The file of another agent may grow while it is read. Only the bytes up to the length above are read.
        while (bytes.len() as u64) < length - start {
            match self.file.read_at(&mut chunk, start + bytes.len() as u64)? {
                0 => break,
                read => bytes.extend_from_slice(&chunk[..read]),
            }
        }
        bytes.truncate(TAIL as usize);
        Ok((bytes, start == 0))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{HEAD, LIMIT, Log, TAIL};

    #[test]
    fn the_tail_is_bounded_and_starts_with_a_whole_line() {
        fn check(content: &[u8], expected: &str) {
            let dir = tempfile::tempdir().unwrap();
            let log = Log::create(&dir.path().join("vmm.log")).unwrap();
            log.append(content);
            assert_eq!(log.tail(), expected);
        }

        check(b"", "");
        check(b"one line", "one line");
        check(b"not \xff text\n", "not \u{fffd} text\n");
        check(
            b"\x1b[1;31mred\r\nback\x08\n",
            "\\u{1b}[1;31mred\nback\\u{8}\n",
        );
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
        log.append(b"last words");
        drop(dir);
        assert_eq!(log.tail(), "last words");
    }

    #[test]
    fn the_file_is_bounded_and_keeps_what_came_first_and_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.log");
        let log = Log::create(&path).unwrap();
        let mut written = 0;
        log.append(b"first words\n");
        let line = format!("{}\n", "x".repeat(4095));
        while written < 5 * LIMIT {
            log.append(line.as_bytes());
            written += line.len() as u64;
            assert!(fs::metadata(&path).unwrap().len() <= LIMIT);
        }
        log.append(b"last words\n");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("first words\n") && text.ends_with("last words\n"));
        assert!(log.tail().ends_with("last words\n") && log.tail().len() as u64 <= TAIL);
        assert_eq!(text.matches("bytes left out]").count(), 1);
        assert!(text[HEAD as usize..].starts_with("\n["));
    }

    #[test]
    fn the_longest_write_is_bounded_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.log");
        let log = Log::create(&path).unwrap();
        let much = [vec![b'x'; 3 * LIMIT as usize], b"last words".to_vec()].concat();
        log.append(&much);
        assert!(fs::metadata(&path).unwrap().len() < LIMIT);
        let text = fs::read_to_string(&path).unwrap();
        let left_out = much.len() as u64 - HEAD - TAIL;
        assert!(text.contains(&format!("[{left_out} bytes left out]")));
        assert!(text.ends_with("last words"));
    }
}
