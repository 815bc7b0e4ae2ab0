//! The thread that reads the output of all VMMs and their guests: logs, consoles and event monitors ([`watch`]).
//!
//! A hostile writer must not use much time of this process, nor delay the output of other VMMs. So the output is not
//! read on the thread that starts and reaps VMMs. Each pipe is read at a limited rate, above which its writer has to
//! wait. The pipes are read in turns, one chunk each.
//!
//! When a VMM has ended, [`finish`] reads the rest of its pipes and closes them, and only then publishes its end. So
//! the log of a VMM that has ended is complete.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::log::Log;
use super::throttle::{Rate, Throttle};
use crate::broadcast;
use crate::causes::Causes;
use crate::client::{Decoder, MonitorEvent};
use crate::mutex::lock;
use crate::vmm::beyond_streams;
use crate::vmm::waker::Waker;

/// How much is read from a pipe at a time, in bytes. It is the default size of a pipe.
const CHUNK: usize = 64 * 1024;

/// The most that is read from one pipe after its VMM has ended, in bytes. It is the largest pipe that an ordinary user
/// can make. The limit is needed because a fork of the VMM may still write to the pipe.
const LAST: usize = 1024 * 1024;

/// The rate of consoles. A guest may write to its console as fast as it can.
const CONSOLE: Rate = Rate {
    burst: 1024 * 1024,
    steady: 2 * 1024 * 1024,
};

/// The rate of logs. The burst is ten times the output of v53.0 at its start with `-v -v`, so a start is not slowed
/// down.
const LOG: Rate = Rate {
    burst: 4 * 1024 * 1024,
    steady: 4 * 1024 * 1024,
};

/// The rate of event monitors. Events are small and few, and a VMM drops those that don't fit into its pipe.
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

/// The destination of the bytes that are read from a pipe.
enum Sink {
    Log(Arc<Log>),
    Events {
        decoder: Decoder,
        subscribers: broadcast::Sender<MonitorEvent>,
    },
}

impl Pipe {
    /// Makes a pipe for the VMM's standard output and error. Returns it with its writing end.
    pub(in crate::vmm) fn log(log: Arc<Log>) -> io::Result<(Pipe, OwnedFd)> {
        Pipe::new(Sink::Log(log), LOG)
    }

    /// Makes a pipe for the consoles of the VMM's VMs. Returns it with its writing end.
    pub(in crate::vmm) fn console(log: Arc<Log>) -> io::Result<(Pipe, OwnedFd)> {
        Pipe::new(Sink::Log(log), CONSOLE)
    }

    /// Makes a pipe for the event monitor. Returns it with its writing end. The stream of events closes when the VMM
    /// has ended.
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

    /// Reads at most one chunk without waiting. Returns the number of bytes, or `None` if the pipe is at its end.
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

    /// Reads the rest of the pipe, at most [`LAST`] bytes.
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

/// A command to the thread.
enum Command {
    /// Reads these pipes of the VMM with this process id.
    Watch(u32, Vec<Pipe>),
    /// Reads the rest of that VMM's pipes, closes them, and calls the function.
    Finish(u32, Box<dyn FnOnce() + Send>),
}

/// The channel to the thread.
struct Pump {
    commands: mpsc::Sender<Command>,
    waker: Waker,
}

/// The thread's channel, once the first VMM was started.
static PUMP: Mutex<Option<Pump>> = Mutex::new(None);

/// Starts the thread, unless it is running already.
pub(in crate::vmm) fn start() -> io::Result<()> {
    let mut pump = lock(&PUMP);
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

/// Makes the thread read the pipes of the VMM with this process id, until [`finish`].
pub(in crate::vmm) fn watch(pid: u32, pipes: Vec<Pipe>) {
    send(Command::Watch(pid, pipes));
}

/// For the VMM with this process id, which has ended: makes the thread read the rest of its pipes, close them, and then
/// call `then`. Only the thread that starts VMMs calls this function and [`watch`]. So if a process id is used again,
/// the calls for the earlier VMM come before those for the later one.
pub(in crate::vmm) fn finish(pid: u32, then: impl FnOnce() + Send + 'static) {
    send(Command::Finish(pid, Box::new(then)));
}

fn send(command: Command) {
    let pump = lock(&PUMP);
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
    // The thread ends only by a panic. The end of a VMM must be published even then.
    if let Some(command) = unsent {
        tracing::error!("the thread that reads the logs of VMMs isn't running");
        if let Command::Finish(_, then) = command {
            then();
        }
    }
}

/// A pipe with the process id of its VMM.
type Watched = (u32, Pipe);

/// The thread's loop: reads the pipes in turns, each at its rate. It never returns.
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

/// Waits until a pipe can be read or a command has arrived. Returns, for each pipe in its order, whether it can be
/// read.
fn wait(pipes: &mut [Watched], woken: &Waker) -> Vec<bool> {
    let now = Instant::now();
    let delays: Vec<Duration> = pipes
        .iter_mut()
        .map(|(_, pipe)| pipe.throttle.delay(CHUNK as u64, now))
        .collect();
    let mut descriptors = vec![PollFd::new(woken, PollFlags::IN)];
    for ((_, pipe), delay) in pipes.iter().zip(&delays) {
        // A pipe that was read faster than its rate is not polled, so that neither its content nor its end wakes the
        // thread before the delay is over.
        if delay.is_zero() {
            descriptors.push(PollFd::new(pipe, PollFlags::IN));
        }
    }
    let limit = delays.iter().filter(|delay| !delay.is_zero()).min();
    // A delay is a few seconds at most, so the conversion can't fail.
    let limit = limit.map(|limit| Timespec::try_from(*limit).unwrap_or_default());
    match poll(&mut descriptors, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => {
            // The only remaining error is a lack of memory. The thread tries again after a pause.
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
