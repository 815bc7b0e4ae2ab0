//! [`Process`]: a VMM's process, held by a pidfd.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::procfs::ProcessStamp;
use super::{Error, OpenFile, open_files, procfs};

/// A VMM's process that this process has started.
///
/// It is held by a pidfd, so a signal can't reach another process that gets the same id later.
#[derive(Clone, Debug)]
pub struct Process {
    pub(super) stamp: ProcessStamp,
    pub(super) listener_inode: u64,
    /// The descriptor that was the api-socket's listener when it was searched for the first time.
    listener_fd: Arc<OnceLock<u32>>,
    pidfd: Arc<OwnedFd>,
}

impl Process {
    /// Opens the process with this id. The caller must ensure that the id still belongs to the intended process: it is
    /// a child that is not reaped, or the caller checks the process after this call.
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

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.stamp.pid
    }

    /// The time at which the process started, in clock ticks since the host's boot. Process id and start time together
    /// distinguish this process from all earlier and later ones.
    pub fn start_time(&self) -> u64 {
        self.stamp.start_time
    }

    /// Lists the open files of the process, sockets and pipes included, each with its device and inode. The list proves
    /// that the disk that was hashed is the disk that the VMM uses.
    ///
    /// The list is not a snapshot of one moment: a file that is opened or closed during the call may be in it or not.
    ///
    /// # Errors
    ///
    /// - [`Error::ProcessEnded`]: the process has ended.
    /// - [`Error::Inspect`]: the kernel refuses, for instance because the VMM's executable has file capabilities that
    ///   this process lacks; or the process has more than 4,096 descriptors.
    pub fn open_files(&self) -> Result<Vec<OpenFile>, Error> {
        let mut files = Vec::new();
        let all = |file| {
            files.push(file);
            ControlFlow::Continue(())
        };
        self.look_at_open_files(&[], |_, _| true, all)?;
        Ok(files)
    }

    /// Calls `look` with each open file of the process that has a `wanted` device and inode, until `look` breaks. The
    /// descriptors in `first` come before all others, so the call is cheap if they suffice.
    ///
    /// # Errors
    ///
    /// Those of [`open_files`](Self::open_files).
    pub(crate) fn look_at_open_files(
        &self,
        first: &[u32],
        wanted: impl Fn(u64, u64) -> bool,
        look: impl FnMut(OpenFile) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.inspect("fd", || open_files::look(self.pid(), first, wanted, look))
    }

    /// Whether the process still has the listener of its api-socket open. The listener is recognised by its inode, so a
    /// socket that another process binds to the same path is not taken for it.
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

    /// Reads a file of this process from `/proc`. If the process is still running after the read, the id belonged to it
    /// during the read.
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
            // The first thread of the process has ended, and the others are about to end.
            io::ErrorKind::NotFound => Error::ProcessEnded { pid },
            _ => Error::Inspect {
                pid,
                path: procfs::directory(pid).join(file),
                source,
            },
        })
    }

    /// Whether the process has ended, even if it was not reaped yet.
    pub(super) fn has_ended(&self) -> bool {
        self.wait_until_ended(Duration::ZERO)
    }

    /// Blocks until the process has ended. Returns `false` if it has not ended within `limit`.
    pub(super) fn wait_until_ended(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // A limit is at most a day, so the conversion can't fail.
            let left = Timespec::try_from(left).unwrap_or_default();
            match poll(&mut fds, Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                result => return result.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Sends a signal. It is not an error if the process has ended.
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
