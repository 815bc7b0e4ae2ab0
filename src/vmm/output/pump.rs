//! The one thread that reads what VMMs and their guests write: logs, consoles and event monitors.
//!
//! A hostile writer must cost a small share of this process, and nothing of the other VMMs. So none of it is read on the
//! thread that starts and reaps VMMs; each pipe has a rate, above which its writer waits for the full pipe; and the pipes
//! are read in turns, one chunk each, so that none starves another.
//!
//! When a VMM has ended, [`finish`] reads what it still had in its pipes and closes them, and only then lets its end be
//! known: the last words of a VMM are complete.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::log::Log;
use super::throttle::{Rate, Throttle};
use crate::broadcast;
use crate::causes::Causes;
use crate::client::{Decoder, MonitorEvent};
use crate::vmm::files::beyond_streams;
use crate::vmm::waker::Waker;

/// How much is read from a pipe at a time, in bytes; as much as a pipe holds unless its writer makes it larger.
const CHUNK: usize = 64 * 1024;

/// The most that is read from one pipe after its VMM has ended, in bytes; as much as an ordinary user can make a pipe
/// hold. A process that the VMM has left behind may write on.
const LAST: usize = 1024 * 1024;

/// The console is the guest's, which may write what it likes as fast as it can.
const CONSOLE: Rate = Rate {
    burst: 1024 * 1024,
    steady: 2 * 1024 * 1024,
};

/// A VMM that writes its log waits for nothing at its start: ten times as much as v53.0 says with `-v -v`.
const LOG: Rate = Rate {
    burst: 4 * 1024 * 1024,
    steady: 4 * 1024 * 1024,
};

/// Events are small and few; a VMM drops what its pipe doesn't take.
const EVENTS: Rate = Rate {
    burst: 1024 * 1024,
    steady: 256 * 1024,
};

/// The reading end of a pipe that a VMM writes to.
pub(in crate::vmm) struct Pipe {
    end: OwnedFd,
    throttle: Throttle,
    sink: Sink,
}

/// Where it goes.
enum Sink {
    Log(Arc<Log>),
    Events {
        decoder: Decoder,
        subscribers: broadcast::Sender<MonitorEvent>,
    },
}

impl Pipe {
    /// A pipe for the VMM's standard output and error, and its writing end.
    pub(in crate::vmm) fn log(log: Arc<Log>) -> io::Result<(Pipe, OwnedFd)> {
        Pipe::new(Sink::Log(log), LOG)
    }

    /// A pipe for the consoles of the VMM's VMs, and its writing end.
    pub(in crate::vmm) fn console(log: Arc<Log>) -> io::Result<(Pipe, OwnedFd)> {
        Pipe::new(Sink::Log(log), CONSOLE)
    }

    /// A pipe for the event monitor, and its writing end. The events end when the VMM has.
    pub(in crate::vmm) fn events(
        subscribers: broadcast::Sender<MonitorEvent>,
    ) -> io::Result<(Pipe, OwnedFd)> {
        let decoder = Decoder::default();
        let sink = Sink::Events {
            decoder,
            subscribers,
        };
        Pipe::new(sink, EVENTS)
    }

    fn new(sink: Sink, rate: Rate) -> io::Result<(Pipe, OwnedFd)> {
        let (end, for_vmm) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&end, true)?;
        let for_vmm = beyond_streams(for_vmm)?;
        let pipe = Pipe {
            end,
            throttle: Throttle::new(rate, Instant::now()),
            sink,
        };
        Ok((pipe, for_vmm))
    }

    /// Takes at most one chunk of what is there, without waiting: how many bytes, or `None` when nothing will follow.
    fn read(&mut self) -> Option<usize> {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        match rustix::io::read(&self.end, &mut chunk) {
            Ok(([], _)) => None,
            Ok((bytes, _)) => {
                self.throttle.take(bytes.len());
                self.sink.take(bytes);
                Some(bytes.len())
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Some(0),
            Err(error) => {
                tracing::debug!(error = %Causes(&error), "a pipe of a VMM can't be read");
                None
            }
        }
    }

    /// Takes what is left, at most [`LAST`].
    fn drain(mut self) {
        let mut left = LAST;
        while let Some(length @ 1..) = self.read() {
            left = left.saturating_sub(length);
            if left == 0 {
                break;
            }
        }
    }
}

impl Sink {
    fn take(&mut self, bytes: &[u8]) {
        match self {
            Sink::Log(log) => log.append(bytes),
            Sink::Events {
                decoder,
                subscribers,
            } => decoder.push(bytes, |event| match event {
                Ok(event) => {
                    tracing::debug!(source = event.source, event = event.event, "VMM event");
                    subscribers.send(event);
                }
                Err(error) => {
                    tracing::debug!(error = %Causes(&error), "bytes of an event monitor were left out");
                }
            }),
        }
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// What the thread is told.
enum Command {
    /// Reads these pipes of the VMM with this process id.
    Watch(u32, Vec<Pipe>),
    /// Reads what is left in that VMM's pipes, closes them, and calls this.
    Finish(u32, Box<dyn FnOnce() + Send>),
}

/// The way to the thread.
struct Pump {
    commands: mpsc::Sender<Command>,
    waker: Waker,
}

/// Started with the first VMM.
static PUMP: Mutex<Option<Pump>> = Mutex::new(None);

/// Starts the thread, unless it runs.
pub(in crate::vmm) fn start() -> io::Result<()> {
    let mut pump = PUMP.lock().unwrap_or_else(PoisonError::into_inner);
    if pump.is_none() {
        *pump = Some(start_thread()?);
    }
    Ok(())
}

fn start_thread() -> io::Result<Pump> {
    let (commands, incoming) = mpsc::channel();
    let waker = Waker::new()?;
    let woken = waker.clone();
    thread::Builder::new()
        .name("vmm-pump".to_owned())
        .spawn(move || run(&incoming, &woken))?;
    Ok(Pump { commands, waker })
}

/// Has the pipes of the VMM with this process id read, until [`finish`].
pub(in crate::vmm) fn watch(pid: u32, pipes: Vec<Pipe>) {
    tell(Command::Watch(pid, pipes));
}

/// Reads what the VMM with this process id, which has ended, had still written; closes its pipes; and then calls `then`, on
/// the pump's thread. The thread that starts VMMs calls this and [`watch`], so an id that is used again is that of the
/// later VMM.
pub(in crate::vmm) fn finish(pid: u32, then: impl FnOnce() + Send + 'static) {
    tell(Command::Finish(pid, Box::new(then)));
}

fn tell(command: Command) {
    let pump = PUMP.lock().unwrap_or_else(PoisonError::into_inner);
    let unsent = match &*pump {
        Some(pump) => {
            let sent = pump.commands.send(command);
            if let Err(error) = pump.waker.wake() {
                tracing::error!(error = %Causes(&error), "the thread that reads the logs of VMMs couldn't be woken");
            }
            sent.err().map(|mpsc::SendError(command)| command)
        }
        None => Some(command),
    };
    drop(pump);
    // The thread ends only by a panic. Ends of VMMs have to be known all the same.
    if let Some(command) = unsent {
        tracing::error!("the thread that reads the logs of VMMs isn't running");
        if let Command::Finish(_, then) = command {
            then();
        }
    }
}

/// A pipe with the process id of its VMM.
type Watched = (u32, Pipe);

/// The thread: reads pipes in turns, each as fast as its rate, and never ends itself.
fn run(commands: &mpsc::Receiver<Command>, woken: &Waker) {
    let mut pipes: Vec<Watched> = Vec::new();
    loop {
        let ready = wait(&mut pipes, woken);
        woken.clear();
        let mut ready = ready.into_iter();
        pipes.retain_mut(|(_, pipe)| !ready.next().unwrap_or(false) || pipe.read().is_some());
        for command in commands.try_iter() {
            match command {
                Command::Watch(pid, new) => pipes.extend(new.into_iter().map(|pipe| (pid, pipe))),
                Command::Finish(pid, then) => {
                    let ended = pipes.extract_if(.., |(owner, _)| *owner == pid);
                    ended.for_each(|(_, pipe)| pipe.drain());
                    then();
                }
            }
        }
    }
}

/// Waits until a pipe may be read, or a command has come: which of the pipes may be, in their order.
fn wait(pipes: &mut [Watched], woken: &Waker) -> Vec<bool> {
    let now = Instant::now();
    let delays: Vec<Duration> = pipes
        .iter_mut()
        .map(|(_, pipe)| pipe.throttle.delay(CHUNK as u64, now))
        .collect();
    let mut descriptors = vec![PollFd::new(woken, PollFlags::IN)];
    for ((_, pipe), delay) in pipes.iter().zip(&delays) {
        // A pipe that has to wait is not asked for: neither what it holds nor its end wakes the thread before its time.
        if delay.is_zero() {
            descriptors.push(PollFd::new(pipe, PollFlags::IN));
        }
    }
    let limit = delays.iter().filter(|delay| !delay.is_zero()).min();
    // Delays are seconds at most: any fits.
    let limit = limit.map(|limit| Timespec::try_from(*limit).unwrap_or_default());
    match poll(&mut descriptors, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => {
            // Out of memory is all that is left. It is tried again after a pause.
            tracing::error!(error = %Causes(&error), "waiting for the logs of VMMs failed");
            thread::sleep(Duration::from_millis(100));
        }
    }
    let mut asked = descriptors[1..].iter();
    delays
        .iter()
        .map(|delay| delay.is_zero() && asked.next().is_some_and(|fd| !fd.revents().is_empty()))
        .collect()
}
