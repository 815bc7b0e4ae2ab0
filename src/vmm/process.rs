//! The handle of a VMM process.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::procfs::Stamp;
use super::{Error, OpenFile, open_files, procfs};

/// A VMM process that this process started.
///
/// It is held by a pidfd, so that no signal ever reaches another process that got its id later.
#[derive(Clone, Debug)]
pub struct Process {
    pub(super) stamp: Stamp,
    pub(super) listener_inode: u64,
    /// Where its listener was found the first time.
    listener_fd: Arc<OnceLock<u32>>,
    pidfd: Arc<OwnedFd>,
}

impl Process {
    /// The process with this id, which must be known to be there still: a child that isn't reaped, or by a check of
    /// the start time afterwards.
    pub(super) fn open(pid: u32, listener_inode: u64) -> io::Result<Process> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(raw.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())
            .map_err(|error| procfs::gone_is_not_found(error.into()))?;
        Ok(Process {
            stamp: procfs::stamp(pid)?,
            listener_inode,
            listener_fd: Arc::default(),
            pidfd: Arc::new(pidfd),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.stamp.pid
    }

    /// When it started, in clock ticks since the boot of the machine. With the process id, it tells this process from
    /// any other before or after.
    pub fn start_time(&self) -> u64 {
        self.stamp.start_time
    }

    /// What the process has open, sockets and pipes included, with the identity of each: the proof that the disk that was
    /// hashed is the disk that the VMM uses.
    ///
    /// Not one view of an instant: what is opened or closed meanwhile may be in it or not.
    ///
    /// # Errors
    ///
    /// - [`Error::ProcessEnded`]: there is nobody to ask.
    /// - [`Error::Inspect`]: the kernel refuses, for one because the VMM's executable has file capabilities and this
    ///   process has not; or the process has more than 4,096 descriptors.
    pub fn open_files(&self) -> Result<Vec<OpenFile>, Error> {
        let mut files = Vec::new();
        let all = |file| {
            files.push(file);
            ControlFlow::Continue(())
        };
        self.look_at_open_files(&[], |_, _| true, all)?;
        Ok(files)
    }

    /// Looks at the open files of a `wanted` device and inode one by one, until `look` has seen enough. The descriptors in
    /// `first` come before all others: where they suffice, this costs little.
    ///
    /// # Errors
    ///
    /// Those of [`open_files`](Self::open_files).
    pub fn look_at_open_files(
        &self,
        first: &[u32],
        wanted: impl Fn(u64, u64) -> bool,
        look: impl FnMut(OpenFile) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.inspect("fd", || open_files::look(self.pid(), first, wanted, look))
    }

    /// Whether the process still has the listener of its api-socket: the one that was made for it, not one that
    /// somebody bound at the same path.
    ///
    /// # Errors
    ///
    /// [`Error::ProcessEnded`] and [`Error::Inspect`], as for [`open_files`](Process::open_files).
    pub fn holds_listener(&self) -> Result<bool, Error> {
        let likely = self.listener_fd.get().copied();
        let found = self.inspect("fd", || {
            procfs::descriptor_of_socket(self.pid(), self.listener_inode, likely)
        })?;
        if let Some(fd) = found {
            let _ = self.listener_fd.set(fd);
        }
        Ok(found.is_some())
    }

    /// Reads something from `/proc` that is certainly of this process: one that lives after the reading lived during it,
    /// so nobody else had its id.
    pub(super) fn inspect<T>(
        &self,
        file: &str,
        read: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, Error> {
        let pid = self.pid();
        let result = read();
        if self.has_ended() {
            return Err(Error::ProcessEnded { pid });
        }
        result.map_err(|source| match source.kind() {
            // Its first thread has ended and the others are about to.
            io::ErrorKind::NotFound => Error::ProcessEnded { pid },
            _ => Error::Inspect {
                pid,
                path: procfs::directory(pid).join(file),
                source,
            },
        })
    }

    /// Whether the process has ended, reaped or not.
    pub(super) fn has_ended(&self) -> bool {
        self.wait_until_ended(Duration::ZERO)
    }

    /// Blocks until the process has ended; `false` if it hasn't within `limit`.
    pub(super) fn wait_until_ended(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Limits are seconds: any fits.
            let left = Timespec::try_from(left).unwrap_or_default();
            match poll(&mut fds, Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                result => return result.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Sends a signal; one that has ended gets none, without an error.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
