//! [`Lease`]: a read lease, with which the kernel guarantees that no process has a file open for writing while it is
//! held.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::filesystem;
use crate::causes::Causes;

/// `F_SETSIG` of the kernel's `asm-generic/fcntl.h`: libc doesn't have it for glibc.
const F_SETSIG: c_int = 10;

/// A read lease on an open file (`fcntl(2)`, `F_SETLEASE`), given back on drop.
///
/// It is granted only while no process has the file open for writing, and only to the file's owner or with `CAP_LEASE`.
/// A process that then opens the file for writing or truncates it waits until the lease is given back. After
/// `/proc/sys/fs/lease-break-time` (45 s by default) the kernel revokes the lease. So call [`is_held`](Self::is_held)
/// often, and drop the lease once it returns false.
#[derive(Debug)]
pub(crate) struct Lease<F: AsFd> {
    file: F,
}

impl<F: AsFd> Lease<F> {
    /// Takes the lease. Fails with [`io::ErrorKind::Unsupported`] on a filesystem that isn't in the list of
    /// [`filesystem::is_known`]. `file` must be open for reading only.
    ///
    /// The kernel sends the holder a signal when a writer waits. The default, SIGIO, kills a process that has no
    /// handler for it, and a library must not install one. So the signal is changed to SIGURG, which is ignored by
    /// default. Once the lease is taken, the owner of the descriptor is reset (`F_SETOWN`), so that no process is
    /// signalled at all.
    pub(crate) fn take(file: F) -> io::Result<Lease<F>> {
        if !filesystem::is_known(&file) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "leases are not known to hold on this filesystem",
            ));
        }
        fcntl(&file, F_SETSIG, libc::SIGURG)?;
        fcntl(&file, libc::F_SETLEASE, libc::F_RDLCK)?;
        let lease = Lease { file };
        fcntl(&lease.file, libc::F_SETOWN, 0)?;
        Ok(lease)
    }

    /// Whether the lease still exists and no writer waits for its release.
    pub(crate) fn is_held(&self) -> bool {
        matches!(fcntl(&self.file, libc::F_GETLEASE, 0), Ok(libc::F_RDLCK))
    }
}

impl<F: AsFd> Drop for Lease<F> {
    fn drop(&mut self) {
        // Closing the file is not enough if a process that was just forked still has a copy of the descriptor.
        if let Err(error) = fcntl(&self.file, libc::F_SETLEASE, libc::F_UNLCK) {
            tracing::debug!(error = %Causes(&error), "a read lease could not be given back: it no longer exists");
        }
    }
}

fn fcntl(file: &impl AsFd, command: c_int, argument: c_int) -> io::Result<c_int> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and every command used here takes an integer
    // (F_GETLEASE takes none), so the kernel accesses no memory of this process.
    match unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, argument) } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::PathBuf;
    use std::thread;

    use tempfile::TempDir;

    use super::*;
    use crate::overlay::filesystem::known_directory;

    fn some_file() -> Option<(TempDir, PathBuf)> {
        let directory = known_directory()?;
        let path = directory.path().join("file");
        fs::write(&path, "bytes").unwrap();
        Some((directory, path))
    }

    /// Opens for writing, or fails at once if that would have to wait for a lease.
    fn open_for_writing(path: &PathBuf) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
    }

    #[test]
    fn it_is_refused_while_a_writer_has_the_file_open() {
        let Some((_directory, path)) = some_file() else {
            return;
        };
        let file = File::open(&path).unwrap();
        let writer = open_for_writing(&path).unwrap();
        let error = Lease::take(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(writer);
        assert!(Lease::take(&file).unwrap().is_held());
    }

    #[test]
    fn a_writer_waits_for_it_and_no_process_is_killed() {
        let Some((_directory, path)) = some_file() else {
            return;
        };
        let file = File::open(&path).unwrap();
        let lease = Lease::take(&file).unwrap();
        assert!(lease.is_held());

        // If the kernel sends a signal for this writer, it has sent it by now.
        let error = open_for_writing(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(!lease.is_held());

        thread::scope(|scope| {
            let patient = scope.spawn(|| OpenOptions::new().write(true).open(&path));
            drop(lease);
            patient.join().unwrap().unwrap();
        });
        assert!(Lease::take(&file).unwrap().is_held());
    }

    #[test]
    fn truncating_the_file_waits_for_it_too() {
        let Some((_directory, path)) = some_file() else {
            return;
        };
        let file = File::open(&path).unwrap();
        let lease = Lease::take(&file).unwrap();
        thread::scope(|scope| {
            let cut = scope.spawn(|| File::create(&path).unwrap());
            while lease.is_held() {
                thread::yield_now();
            }
            assert_eq!(file.metadata().unwrap().len(), 5);
            drop(lease);
            cut.join().unwrap();
        });
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn it_is_refused_where_leases_are_not_known_to_hold() {
        let error = Lease::take(File::open("/proc/version").unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn it_is_given_back_on_drop() {
        let Some((_directory, path)) = some_file() else {
            return;
        };
        let file = File::open(&path).unwrap();
        drop(Lease::take(&file).unwrap());
        open_for_writing(&path).unwrap();
    }

    #[test]
    fn no_process_is_signalled_when_a_writer_comes() {
        let Some((_directory, path)) = some_file() else {
            return;
        };
        let file = File::open(&path).unwrap();
        let _lease = Lease::take(&file).unwrap();
        assert_eq!(fcntl(&file, libc::F_GETOWN, 0).unwrap(), 0);
        const F_GETSIG: c_int = 11;
        assert_eq!(fcntl(&file, F_GETSIG, 0).unwrap(), libc::SIGURG);
    }
}
