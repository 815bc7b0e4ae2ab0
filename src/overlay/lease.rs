//! A read lease: the kernel's word that nobody has a file open for writing, or will while it is held.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `F_SETSIG` of the kernel's `asm-generic/fcntl.h`: libc doesn't have it for glibc.
const F_SETSIG: c_int = 10;

/// A read lease on an open file (`fcntl(2)`, `F_SETLEASE`), given back on drop.
///
/// It is granted only while nobody has the file open for writing, and only to the file's owner or with `CAP_LEASE`.
/// Whoever then opens the file for writing or truncates it waits until the lease is given back; after
/// `/proc/sys/fs/lease-break-time` (45 s unless set otherwise) the kernel takes the lease away. So
/// [`is_held`](Self::is_held) must be asked often, and the lease dropped once it says no.
#[derive(Debug)]
pub(super) struct Lease<'file> {
    file: &'file File,
}

impl<'file> Lease<'file> {
    /// Takes the lease. `file` must be open for reading only.
    ///
    /// The kernel tells the holder of a writer by a signal: SIGIO unless told otherwise, which kills a process that
    /// doesn't expect it. A library installs no signal handler, so the signal becomes SIGURG, which is ignored by
    /// default, and once the lease is taken, the process is no longer named as the one to be told.
    pub(super) fn take(file: &'file File) -> io::Result<Lease<'file>> {
        fcntl(file, F_SETSIG, libc::SIGURG)?;
        fcntl(file, libc::F_SETLEASE, libc::F_RDLCK)?;
        let lease = Lease { file };
        fcntl(file, libc::F_SETOWN, 0)?;
        Ok(lease)
    }

    /// Whether the lease still stands and nobody waits for it.
    pub(super) fn is_held(&self) -> bool {
        matches!(fcntl(self.file, libc::F_GETLEASE, 0), Ok(libc::F_RDLCK))
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // Closing the file would do too, unless a process that was just forked still has a copy of the descriptor.
        if let Err(error) = fcntl(self.file, libc::F_SETLEASE, libc::F_UNLCK) {
            tracing::debug!(%error, "a read lease was no longer there to be given back");
        }
    }
}

fn fcntl(file: &File, command: c_int, argument: c_int) -> io::Result<c_int> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and every command used here takes an integer
    // (F_GETLEASE none), so the kernel touches none of our memory.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;
    use std::thread;

    use super::*;

    #[test]
    fn a_lease_is_refused_while_a_writer_has_the_file_open() {
        let written = tempfile::NamedTempFile::new().unwrap();
        let file = File::open(written.path()).unwrap();
        let error = Lease::take(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let path = written.into_temp_path();
        assert!(Lease::take(&File::open(&path).unwrap()).unwrap().is_held());
    }

    #[test]
    fn a_writer_waits_for_the_lease_and_kills_nobody() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let file = File::open(&path).unwrap();
        let lease = Lease::take(&file).unwrap();
        assert!(lease.is_held());

        let mut writer = OpenOptions::new();
        writer.write(true);
        let impatient = writer
            .clone()
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap_err();
        assert_eq!(impatient.kind(), io::ErrorKind::WouldBlock);
        assert!(!lease.is_held());

        thread::scope(|scope| {
            let patient = scope.spawn(|| writer.open(&path));
            drop(lease);
            patient.join().unwrap().unwrap();
        });
        assert!(Lease::take(&file).unwrap().is_held());
    }

    #[test]
    fn a_lease_is_given_back_on_drop() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let file = File::open(&path).unwrap();
        drop(Lease::take(&file).unwrap());
        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
    }
}
