//! One run of a tool: start, output, deadline, end.

use std::io;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags};

use super::confinement::Prepared;
use super::processes;
use super::toolbox::CommandLine;
use crate::causes::Causes;
use crate::guest::frame::LengthError;
use crate::guest::protocol::MAX_OUTPUT;

/// The search path of tools, for the built-in ones and for what scripts run.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// How long a killed tool is waited for. One in an uninterruptible system call dies when that ends.
const DEATH: Duration = Duration::from_secs(5);

/// What became of a tool.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It ended by itself, with this exit code.
    Exited(i32),
    /// This signal killed it.
    Signalled(i32),
    /// It was killed at the deadline.
    DeadlineExceeded,
    /// It could not be started, or not be followed to its end, and was killed.
    Failed(io::Error),
}

/// What a tool wrote.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
}

/// What a tool wrote to one stream.
#[derive(Debug, Default)]
pub(super) struct Captured {
    /// The first [`MAX_OUTPUT`] bytes.
    pub(super) kept: Vec<u8>,
    /// How many bytes came after them. They are read and dropped, so that the tool doesn't block.
    pub(super) dropped: u64,
}

impl Captured {
    fn take(&mut self, bytes: &[u8]) {
        let room = MAX_OUTPUT - self.kept.len();
        let (kept, dropped) = bytes.split_at(bytes.len().min(room));
        self.kept.extend_from_slice(kept);
        self.dropped += dropped.len() as u64;
    }

    /// Puts the guest's own words in the place of what the tool wrote.
    pub(super) fn replace(&mut self, words: String) {
        let replaced = std::mem::replace(&mut self.kept, words.into_bytes());
        self.dropped += replaced.len() as u64;
    }

    /// How many bytes there were, kept and dropped.
    pub(super) fn total(&self) -> u64 {
        self.kept.len() as u64 + self.dropped
    }
}

/// Runs a tool until it ends or `deadline` has passed, and tells `grown` of its standard output whenever there is more of
/// it.
///
/// Processes that a tool leaves behind when it ends by itself go on running until the reset; that they hold
/// its output open doesn't delay the result. At the deadline everything that the tool started is killed.
///
/// A host that doesn't take what `grown` sends it holds the deadline up, for as long as the connection lets it.
pub(super) fn run(
    line: &CommandLine,
    deadline: Duration,
    confinement: &Arc<Prepared>,
    mut grown: impl FnMut(&[u8]) -> Result<(), LengthError>,
) -> (Outcome, Output) {
    let end = Instant::now() + deadline;
    let mut command = Command::new(&line.program);
    command
        .args(&line.arguments)
        .env_clear()
        .envs([("PATH", PATH), ("HOME", "/tmp"), ("LANG", "C.UTF-8")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    confinement.confine(&mut command);
    let mut tool = match command.spawn().and_then(Running::new) {
        Ok(tool) => tool,
        Err(error) => return (Outcome::Failed(error), Output::default()),
    };
    let outcome = match tool.follow(end, &mut grown) {
        Ok(outcome) => outcome,
        Err(error) => {
            tool.kill();
            Outcome::Failed(error)
        }
    };
    (outcome, tool.output())
}

fn ended(status: ExitStatus) -> io::Result<Outcome> {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(Outcome::Exited(code)),
        (None, Some(signal)) => Ok(Outcome::Signalled(signal)),
        (None, None) => Err(io::Error::other(format!("it ended with {status}"))),
    }
}

struct Running {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    stdout: Stream,
    stderr: Stream,
}

impl Running {
    fn new(mut child: Child) -> io::Result<Running> {
        // Both are always there: the command was given pipes, and a child that was spawned has a pid.
        let stdout = Stream::new(child.stdout.take().map(OwnedFd::from));
        let stderr = Stream::new(child.stderr.take().map(OwnedFd::from));
        let pid = Pid::from_child(&child);
        let opened = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(|pidfd| Ok((pidfd, stdout?, stderr?)));
        match opened {
            Ok((pidfd, stdout, stderr)) => Ok(Running {
                child,
                pid,
                pidfd,
                stdout,
                stderr,
            }),
            Err(error) => {
                processes::kill_all_of(pid);
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Takes the tool's output until it has ended, or was killed at `end`.
    fn follow(
        &mut self,
        end: Instant,
        grown: &mut impl FnMut(&[u8]) -> Result<(), LengthError>,
    ) -> io::Result<Outcome> {
        while !self.has_ended(end)? {
            if Instant::now() >= end {
                self.kill();
                return Ok(Outcome::DeadlineExceeded);
            }
            grown(&self.stdout.captured.kept).map_err(io::Error::other)?;
        }
        self.drain()?;
        ended(self.child.wait()?)
    }

    /// Waits for output, the tool's end, or `end`, and takes what there is. True once the tool has ended.
    fn has_ended(&mut self, end: Instant) -> io::Result<bool> {
        let left = end.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut polled = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        for stream in [&self.stdout, &self.stderr] {
            if let Some(pipe) = &stream.pipe {
                polled.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
        match rustix::event::poll(&mut polled, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = !polled[0].revents().is_empty();
        self.stdout.read_some()?;
        self.stderr.read_some()?;
        Ok(ended)
    }

    /// Takes what the pipes hold, and no more: a process that the tool left may hold them open, and write.
    fn drain(&mut self) -> io::Result<()> {
        self.stdout.drain()?;
        self.stderr.drain()
    }

    /// Kills everything that the tool started and reaps the tool.
    fn kill(&mut self) {
        processes::kill_all_of(self.pid);
        let gone = Instant::now() + DEATH;
        while let Ok(false) = self.has_ended(gone) {
            if Instant::now() >= gone {
                tracing::warn!(pid = self.pid.as_raw_nonzero(), "a killed tool doesn't end");
                return;
            }
        }
        if let Err(error) = self.drain() {
            tracing::warn!(error = %Causes(&error), "a killed tool's last output could not be read");
        }
        if let Err(error) = self.child.wait() {
            tracing::warn!(error = %Causes(&error), "a killed tool could not be reaped");
        }
    }

    fn output(self) -> Output {
        Output {
            stdout: self.stdout.captured,
            stderr: self.stderr.captured,
        }
    }
}

/// The reading end of a tool's output, and what is kept of it.
struct Stream {
    /// `None` after its end.
    pipe: Option<std::fs::File>,
    captured: Captured,
}

impl Stream {
    fn new(pipe: Option<OwnedFd>) -> io::Result<Stream> {
        if let Some(pipe) = &pipe {
            rustix::fs::fcntl_setfl(pipe.as_fd(), OFlags::NONBLOCK)?;
        }
        Ok(Stream {
            pipe: pipe.map(std::fs::File::from),
            captured: Captured::default(),
        })
    }

    /// Reads once; returns how many bytes there were.
    fn read_some(&mut self) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(0);
        };
        let mut buffer = [0; 64 * 1024];
        match pipe.read(&mut buffer) {
            Ok(0) => {
                self.pipe = None;
                Ok(0)
            }
            Ok(read) => {
                self.captured.take(&buffer[..read]);
                Ok(read)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            },
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        let Some(pipe) = &self.pipe else {
            return Ok(());
        };
        let mut left = rustix::pipe::fcntl_getpipe_size(pipe)?;
        while left > 0 {
            match self.read_some()? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok(())
    }
}
