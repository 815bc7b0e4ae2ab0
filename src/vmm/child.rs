//! A VMM that is this process's child, as the spawner thread looks after it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::{broadcast, watch};

use super::events::Decoder;
use super::family::Family;
use super::log::Log;
use super::spawner::Living;
use super::{Ended, Event, Exit};

/// How much is read from a pipe at a time, in bytes; as much as a pipe holds.
const CHUNK: usize = 64 * 1024;

/// A child that isn't reaped yet. Nobody else reaps it.
pub(super) struct Child {
    pub(super) family: Family,
    pub(super) events: Option<EventPipe>,
    pub(super) log: Arc<Log>,
    /// Those that may still be written to: the log's, and the console's.
    pub(super) log_pipes: Vec<LogPipe>,
    pub(super) ended: watch::Sender<Option<Ended>>,
    pub(super) _living: Living,
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

    /// Keeps what the VMM and its guest have written; whether they had written anything.
    pub(super) fn read_logs(&mut self) -> bool {
        let mut any = false;
        self.log_pipes.retain(|pipe| match pipe.read() {
            Some(length) => {
                any |= length > 0;
                true
            }
            None => false,
        });
        any
    }

    /// Takes the status of the child if it has ended, and tells everybody who waits.
    pub(super) fn reap(&mut self) -> bool {
        let process = &self.family.process;
        if !process.has_ended() {
            return false;
        }
        let pid = process.pid();
        self.read_events();
        // As much as a pipe holds, and no more: what the child has started may write on.
        let mut left = 16;
        while left > 0 && self.read_logs() {
            left -= 1;
        }
        // While its leader isn't reaped, the group's id can't become somebody else's.
        if let Some(group) = Pid::from_raw(pid as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let exit = loop {
            let process = WaitId::PidFd(self.family.process.as_fd());
            match waitid(process, WaitIdOptions::EXITED) {
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
        self.family.kill_left();
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
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        match rustix::io::read(&self.pipe, &mut chunk) {
            Ok(([], _)) => false,
            Ok((bytes, _)) => {
                for event in self.decoder.push(bytes) {
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

/// The reading end of a pipe whose content is kept in a log.
pub(super) struct LogPipe {
    pipe: OwnedFd,
    log: Arc<Log>,
}

impl LogPipe {
    /// The reading end and the writing end, which is for the VMM.
    pub(super) fn new(log: Arc<Log>) -> io::Result<(LogPipe, OwnedFd)> {
        let (pipe, for_vmm) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok((LogPipe { pipe, log }, for_vmm))
    }

    /// Moves what is there to the log, at most one chunk, without waiting: how many bytes, or `None` when nothing will
    /// follow.
    fn read(&self) -> Option<usize> {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        match rustix::io::read(&self.pipe, &mut chunk) {
            Ok(([], _)) => None,
            Ok((bytes, _)) => {
                self.log.append(bytes);
                Some(bytes.len())
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
        self.pipe.as_fd()
    }
}

impl AsFd for EventPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
