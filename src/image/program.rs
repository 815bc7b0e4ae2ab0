//! [`Program`]: finds and runs a program of e2fsprogs, with a time limit and independent of the host's configuration.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    process::{Pid, PidfdFlags},
};

use super::{Error, stop::Stop};

/// The time limit of a program. Copying a large tree may take minutes.
const LIMIT: Duration = Duration::from_secs(600);
/// How often the stop flag is checked.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// How many bytes are kept of the end of its messages.
const MESSAGE_LIMIT: u64 = 4096;

/// A program that was found.
pub(super) struct Program {
    path: PathBuf,
}

/// How a program ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The end of its messages.
    pub(super) messages: String,
}

impl Program {
    /// Searches `directories` for `name` in their order.
    pub(super) fn find(name: &str, directories: &[PathBuf]) -> Option<Program> {
        directories
            .iter()
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
            .map(|path| Program { path })
    }

    /// A command with English messages and no standard input.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// Runs `command`, which works on `image`. `scratch` is a directory for its messages.
    pub(super) fn run(
        &self,
        mut command: Command,
        image: &Path,
        scratch: &Path,
        stop: Stop<'_>,
    ) -> Result<Ended, Error> {
        // Messages go to a file, because a full pipe would block the program.
        let mut messages =
            tempfile::tempfile_in(scratch).map_err(Error::io("create a file in", scratch))?;
        let stdio = |file: &File| {
            file.try_clone()
                .map(Stdio::from)
                .map_err(Error::io("duplicate a file in", scratch))
        };
        let mut child = command
            .stdout(stdio(&messages)?)
            .stderr(stdio(&messages)?)
            .spawn()
            .map_err(Error::io("run", &self.path))?;
        let waited = wait(&mut child, LIMIT, stop);
        if !matches!(waited, Ok(Some(_))) {
            // The child is killed before it's reaped, so its number can't be another process's.
            let _ = child.kill();
            let _ = child.wait();
        }
        let waited = waited.map_err(Error::io("wait for", &self.path))?;
        let Some(status) = waited else {
            stop.check()?;
            return Err(Error::ProgramTimeout {
                program: self.path.clone(),
                path: image.into(),
                limit: LIMIT,
            });
        };
        let messages =
            tail(&mut messages).map_err(Error::io("read the messages of", &self.path))?;
        Ok(Ended { status, messages })
    }
}

/// Waits for the child to end. Returns `None` if the limit has passed or a stop was requested.
fn wait(child: &mut Child, limit: Duration, stop: Stop<'_>) -> io::Result<Option<ExitStatus>> {
    let pidfd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || stop.is_requested() {
            return Ok(None);
        }
        let timeout = Timespec::try_from(left.min(STOP_INTERVAL)).map_err(|_| Errno::INVAL)?;
        match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => {}
            Ok(_) => return child.wait().map(Some),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn tail(messages: &mut File) -> io::Result<String> {
    let len = messages.seek(SeekFrom::End(0))?;
    messages.seek(SeekFrom::Start(len.saturating_sub(MESSAGE_LIMIT)))?;
    let mut bytes = Vec::new();
    messages.take(MESSAGE_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_child_has_a_limit() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("cat runs");
        assert!(
            wait(&mut child, Duration::from_millis(20), Stop::never())
                .expect("polled")
                .is_none()
        );
        drop(child.stdin.take());
        assert!(
            wait(&mut child, Duration::from_secs(60), Stop::never())
                .expect("polled")
                .expect("ended")
                .success()
        );
    }
}
