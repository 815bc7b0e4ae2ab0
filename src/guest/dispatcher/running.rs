//! [`Running`], a tool that was started: its pipes, and how it is signalled, killed and reaped.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::cgroup::Group;
use super::confinement::{Prepared, StartError};
use super::function::{Pipes, RunningFunction};
use super::processes;
use super::toolbox::{Action, Call};
use crate::causes::Causes;

/// The search path for the programs of built-in tools, and the tools' variable `PATH` unless the tools file sets
/// another.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// How long the dispatcher waits for a killed tool to die. A tool in an uninterruptible system call dies only after the
/// call.
const DEATH: Duration = Duration::from_secs(5);

/// How a tool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The tool ended by itself with this exit code.
    Exited(u8),
    /// A signal with this number killed the tool.
    Signalled(u8),
}

/// A tool that was started. If it is dropped before it was [reaped](Self::reap), the tool and every process that it
/// started are killed.
pub(super) struct Running {
    body: Body,
    /// Becomes readable when the tool has ended.
    ended: OwnedFd,
    is_reaped: bool,
    /// The dispatcher's ends of the tool's pipes, in non-blocking mode. `None` for a stream that has ended, and for the
    /// standard input of a tool that has none.
    pub(super) stdin: Option<File>,
    pub(super) stdout: Option<File>,
    pub(super) stderr: Option<File>,
}

enum Body {
    Program {
        child: Child,
        pid: Pid,
        group: Option<Group>,
    },
    Function(RunningFunction),
}

impl Running {
    /// Starts the program or function of `call`. A function gets `deadline` as information; the caller must kill the
    /// tool then.
    pub(super) fn start(
        call: &Call,
        deadline: Instant,
        confinement: &Arc<Prepared>,
    ) -> Result<Running, StartError> {
        let running = match &call.action {
            Action::Program { program, arguments } => {
                let mut command = Command::new(program);
                command
                    .args(arguments)
                    .env_clear()
                    .envs([("PATH", PATH), ("HOME", "/tmp"), ("LANG", "C.UTF-8")])
                    .envs(&call.env)
                    .stdin(match call.has_stdin {
                        true => Stdio::piped(),
                        false => Stdio::null(),
                    })
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                let group = confinement.confine(&mut command, call)?;
                let child = command.spawn().map_err(StartError::of_child)?;
                Running::of_program(child, group)?
            }
            Action::Function { function, params } => {
                let (function, pipes) = RunningFunction::start(function, params, call, deadline)?;
                Running::of_function(function, pipes)
            }
        };
        for pipe in running.pipes() {
            let set = rustix::fs::fcntl_setfl(pipe, OFlags::NONBLOCK);
            set.map_err(io::Error::from)?;
        }
        Ok(running)
    }

    fn of_program(mut child: Child, group: Option<Group>) -> io::Result<Running> {
        let pid = Pid::from_child(&child);
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(ended) => Ok(Running {
                stdin: child.stdin.take().map(OwnedFd::from).map(File::from),
                stdout: child.stdout.take().map(OwnedFd::from).map(File::from),
                stderr: child.stderr.take().map(OwnedFd::from).map(File::from),
                body: Body::Program { child, pid, group },
                ended,
                is_reaped: false,
            }),
            Err(error) => {
                kill_all(pid, group.as_ref());
                child.wait()?;
                Err(error.into())
            }
        }
    }

    fn of_function(function: RunningFunction, pipes: Pipes) -> Running {
        let file = |pipe| Some(File::from(pipe));
        Running {
            body: Body::Function(function),
            ended: pipes.ended.into(),
            is_reaped: false,
            stdin: pipes.stdin.and_then(|pipe| file(OwnedFd::from(pipe))),
            stdout: file(pipes.stdout.into()),
            stderr: file(pipes.stderr.into()),
        }
    }

    /// A descriptor that becomes readable when the tool has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// The entry that polls one of the pipes for `wanted`.
    pub(super) fn polled<'a>(&'a self, pipe: Option<&'a File>, wanted: PollFlags) -> PollFd<'a> {
        match pipe {
            Some(pipe) => PollFd::new(pipe, wanted),
            // A placeholder without events, since the caller polls a fixed number of entries.
            None => PollFd::new(&self.ended, PollFlags::empty()),
        }
    }

    /// Makes the pipes as large as the kernel allows, up to `size` bytes.
    pub(super) fn widen(&self, size: usize) {
        for pipe in self.pipes() {
            // This fails if the user's pipes have reached the kernel's limit. The pipe then keeps its size.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, size);
        }
    }

    fn pipes(&self) -> impl Iterator<Item = &File> {
        let pipes = [&self.stdin, &self.stdout, &self.stderr];
        pipes.into_iter().flatten()
    }

    /// Sends SIGTERM to the tool and every process that it started. A function is marked as cancelled.
    pub(super) fn terminate(&self) {
        match &self.body {
            Body::Program { pid, .. } => processes::signal_all_of(*pid, Signal::TERM),
            Body::Function(function) => function.cancel(),
        }
    }

    /// Kills the tool and every process that it started, and waits until the tool is dead, at most [`DEATH`]. A
    /// function is marked as cancelled and runs on.
    pub(super) fn kill(&self) {
        match &self.body {
            Body::Program { pid, group, .. } => {
                kill_all(*pid, group.as_ref());
                let mut polled = [PollFd::new(&self.ended, PollFlags::IN)];
                let gone = Instant::now() + DEATH;
                while polled[0].revents().is_empty() && Instant::now() < gone {
                    if let Err(error) = poll(&mut polled, gone) {
                        tracing::warn!(error = %Causes(&error), "a killed tool can't be waited for");
                        return;
                    }
                }
            }
            Body::Function(function) => function.cancel(),
        }
    }

    /// Reaps a tool that the dispatcher has killed, and ignores how it ended.
    pub(super) fn reap_killed(&mut self) {
        if let Err(error) = self.reap() {
            tracing::warn!(error = %Causes(&error), "a killed tool could not be reaped");
        }
    }

    /// Reaps the tool and returns how it ended. The tool must have ended or been [killed](Self::kill).
    pub(super) fn reap(&mut self) -> io::Result<Ended> {
        self.is_reaped = true;
        match &mut self.body {
            Body::Program { child, .. } => match child.try_wait()? {
                Some(status) => ended(status),
                None => Err(io::Error::other("it was killed and doesn't end")),
            },
            Body::Function(function) => function.reap(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_reaped {
            return;
        }
        self.kill();
        self.reap_killed();
    }
}

/// Kills a tool and every process that it started: the processes of its control group or, without one, its descendants.
fn kill_all(tool: Pid, group: Option<&Group>) {
    match group.map(Group::kill) {
        Some(Ok(())) => return,
        Some(Err(error)) => {
            tracing::warn!(error = %Causes(&error), "a tool's control group could not be killed");
        }
        None => {}
    }
    processes::kill_all_of(tool);
}

fn ended(status: ExitStatus) -> io::Result<Ended> {
    let number = |number: i32| u8::try_from(number).ok();
    match (
        status.code().and_then(number),
        status.signal().and_then(number),
    ) {
        (Some(code), _) => Ok(Ended::Exited(code)),
        (None, Some(signal)) => Ok(Ended::Signalled(signal)),
        (None, None) => Err(io::Error::other(format!("it ended with {status}"))),
    }
}

/// Waits until a descriptor is ready, but not beyond `until`. A signal may end the wait earlier.
pub(super) fn poll(polled: &mut [PollFd<'_>], until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let limit = Timespec::try_from(left).map_err(io::Error::other)?;
    match rustix::event::poll(polled, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How many bytes a pipe holds; 0 for one that has ended.
///
/// After a tool's end these are the bytes that the tool left in the pipe. Reading until the end of the pipe isn't
/// possible then, since a process that the tool started may hold the pipe open and write on.
pub(super) fn held(pipe: Option<&File>) -> io::Result<u64> {
    match pipe {
        Some(pipe) => Ok(rustix::io::ioctl_fionread(pipe)?),
        None => Ok(0),
    }
}
