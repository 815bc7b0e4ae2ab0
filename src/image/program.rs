//! Running of e2fsprogs' programs: found, bounded in time, and independent of the host's configuration.

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

/// Copying a large tree takes a while; a hang takes longer.
const LIMIT: Duration = Duration::from_secs(600);
/// How often it is looked whether to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// How much of the end of its messages is kept, in bytes.
const MESSAGE_LIMIT: u64 = 4096;

/// A program that was found.
pub(super) struct Program {
    path: PathBuf,
}

/// How a program ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The end of what it said.
    pub(super) messages: String,
}

impl Program {
    /// Looks for `name` in `directories`, in their order.
    pub(super) fn find(name: &str, directories: &[PathBuf]) -> Option<Program> {
        directories
            .iter()
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
            .map(|path| Program { path })
    }

    /// A command that says what it says in English and reads nothing.
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
        // Into a file, as a full pipe would stop it.
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
            // Killed before it's reaped, so this can't hit another process.
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

/// Waits for the child's end; `None` when the limit has passed or it is to stop.
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
    fn a_child_that_does_not_end_is_given_up_on() {
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
