//! A tool that was started: its pipes, its end, its death.

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

/// The search path of tools, for the built-in ones and for what scripts run.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// How long a killed tool is waited for. One in an uninterruptible system call dies when that ends.
const DEATH: Duration = Duration::from_secs(5);

/// How a tool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, with this exit code.
    Exited(u8),
    /// This signal killed it.
    Signalled(u8),
}

/// A tool that was started. Dropped before it was [reaped](Self::reap), it is killed with everything that it started.
pub(super) struct Running {
    body: Body,
    /// Can be read once the tool has ended.
    ended: OwnedFd,
    is_reaped: bool,
    /// The dispatcher's ends of the tool's pipes, which don't block. `None` for a stream that has ended, and for the
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
    /// Starts what `call` says. `deadline` is what a function is told; the caller kills the tool then.
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

    /// Can be read once the tool has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// What waits for one of the pipes, if it is there.
    pub(super) fn polled<'a>(&'a self, pipe: Option<&'a File>, wanted: PollFlags) -> PollFd<'a> {
        match pipe {
            Some(pipe) => PollFd::new(pipe, wanted),
            // Its end alone, which is waited for anyhow.
            None => PollFd::new(&self.ended, PollFlags::empty()),
        }
    }

    /// Makes the pipes as large as the kernel allows, up to `size` bytes.
    pub(super) fn widen(&self, size: usize) {
        for pipe in self.pipes() {
            // It stays as it was where the user has too much in pipes already.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, size);
        }
    }

    fn pipes(&self) -> impl Iterator<Item = &File> {
        let pipes = [&self.stdin, &self.stdout, &self.stderr];
        pipes.into_iter().flatten()
    }

    /// Asks everything that the tool started to end.
    pub(super) fn terminate(&self) {
        match &self.body {
            Body::Program { pid, .. } => processes::signal_all_of(*pid, Signal::TERM),
            Body::Function(function) => function.cancel(),
        }
    }

    /// Kills everything that the tool started, and waits until the tool is dead. A function is told, and left alone.
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

    /// Reaps a tool that was killed, whose end tells nothing.
    pub(super) fn bury(&mut self) {
        if let Err(error) = self.reap() {
            tracing::warn!(error = %Causes(&error), "a killed tool could not be reaped");
        }
    }

    /// How the tool ended, which it has, or was [killed](Self::kill).
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
        self.bury();
    }
}

/// Kills a tool and all that it started: what is in its group, or else its descendants.
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

/// Waits until something is ready, or `until`. A signal may end it earlier.
pub(super) fn poll(polled: &mut [PollFd<'_>], until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let limit = Timespec::try_from(left).map_err(io::Error::other)?;
    match rustix::event::poll(polled, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How many bytes a pipe holds; none once it has ended.
///
/// That is what a tool has left in it when it has ended: a process that it started may hold the pipe open, and write on.
pub(super) fn held(pipe: Option<&File>) -> io::Result<u64> {
    match pipe {
        Some(pipe) => Ok(rustix::io::ioctl_fionread(pipe)?),
        None => Ok(0),
    }
}
