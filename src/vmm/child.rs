//! A VMM that is this process's child, as the spawner thread looks after it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::{broadcast, watch};

use super::events::Decoder;
use super::log::Log;
use super::{Ended, Event, Exit, Process};

/// How much is read from a pipe at a time, in bytes; as much as a pipe holds.
const CHUNK: usize = 64 * 1024;

/// A child that isn't reaped yet. Nobody else reaps it.
pub(super) struct Child {
    pub(super) process: Process,
    pub(super) events: Option<EventPipe>,
    pub(super) log: Arc<Log>,
    pub(super) log_pipe: Option<LogPipe>,
    pub(super) ended: watch::Sender<Option<Ended>>,
}

impl Child {
    /// Passes on what the VMM has written to its event monitor.
    pub(super) fn read_events(&mut self) {
        if let Some(events) = &mut self.events
            && !events.read()
        {
            self.events = None;
        }
    }

    /// Keeps what the VMM has written to its standard output and error; whether it had written anything.
    pub(super) fn read_log(&mut self) -> bool {
        let Some(pipe) = &self.log_pipe else {
            return false;
        };
        match pipe.read(&self.log) {
            Some(length) => length > 0,
            None => {
                self.log_pipe = None;
                false
            }
        }
    }

    /// Takes the status of the child if it has ended, and tells everybody who waits.
    pub(super) fn reap(&mut self) -> bool {
        if !self.process.has_ended() {
            return false;
        }
        self.read_events();
        // As much as a pipe holds, and no more: what the child has started may write on.
        let mut left = 16;
        while left > 0 && self.read_log() {
            left -= 1;
        }
        let pid = self.process.pid();
        // While its leader isn't reaped, the group's id can't become somebody else's.
        if let Some(group) = Pid::from_raw(pid as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let exit = loop {
            match waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => {
                    let code = status.exit_status().map(Exit::Code);
                    let signal = status.terminating_signal().map(Exit::Signal);
                    break code.or(signal).unwrap_or(Exit::Unknown);
                }
                Err(rustix::io::Errno::INTR) => {}
                // Something else in this process waits for any child, or SIGCHLD is ignored.
                Ok(None) | Err(_) => break Exit::Unknown,
            }
        };
        tracing::debug!(pid, %exit, "a VMM has ended");
        self.ended.send_replace(Some(Ended {
            pid,
            exit,
            log_tail: self.log.tail(),
        }));
        true
    }
}

/// The reading end of an event monitor.
pub(super) struct EventPipe {
    pipe: OwnedFd,
    decoder: Decoder,
    subscribers: broadcast::Sender<Event>,
}

impl EventPipe {
    /// The reading end and the writing end, which is for the VMM.
    pub(super) fn new(subscribers: broadcast::Sender<Event>) -> io::Result<(EventPipe, OwnedFd)> {
        let (pipe, for_vmm) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let reader = EventPipe {
            pipe,
            decoder: Decoder::default(),
            subscribers,
        };
        Ok((reader, for_vmm))
    }

    /// Passes on what is there, at most one chunk, without waiting; `false` when nothing will follow.
    fn read(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        match rustix::io::read(&self.pipe, &mut chunk) {
            Ok(0) => false,
            Ok(length) => {
                for event in self.decoder.push(&chunk[..length]) {
                    tracing::debug!(source = event.source, event = event.event, "VMM event");
                    // Nobody listening is no error.
                    let _ = self.subscribers.send(event);
                }
                true
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
            Err(error) => {
                tracing::debug!(%error, "the event monitor of a VMM can't be read");
                false
            }
        }
    }
}

/// The reading end of the pipe that is a VMM's standard output and error.
pub(super) struct LogPipe(OwnedFd);

impl LogPipe {
    /// The reading end and the writing end, which is for the VMM.
    pub(super) fn new() -> io::Result<(LogPipe, OwnedFd)> {
        let (pipe, for_vmm) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok((LogPipe(pipe), for_vmm))
    }

    /// Moves what is there to `log`, at most one chunk, without waiting: how many bytes, or `None` when nothing will
    /// follow.
    fn read(&self, log: &Log) -> Option<usize> {
        let mut chunk = [0; CHUNK];
        match rustix::io::read(&self.0, &mut chunk) {
            Ok(0) => None,
            Ok(length) => {
                log.append(&chunk[..length]);
                Some(length)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Some(0),
            Err(error) => {
                tracing::debug!(%error, "the log of a VMM can't be read");
                None
            }
        }
    }
}

impl AsFd for LogPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for EventPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
