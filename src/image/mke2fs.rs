//! Running `mke2fs`: found, bounded in time, and independent of the host's configuration.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    process::{Pid, PidfdFlags},
};

use super::{Error, input::MIB, stop::Stop};

/// The time that every file system was made at: 2020-01-01. It must not be 0, which means now.
pub(super) const EPOCH: u32 = 1_577_836_800;

/// Seed of directory hashes. It only has to be the same each time.
const HASH_SEED: &str = "6ba31a2c-54d7-4a0a-9c65-8d1d5bb0a7e1";

/// What an image's file systems have, and nothing that the host's mke2fs.conf would add. No journal: a disk that is
/// put back after use needs no recovery. No metadata checksums: the whole disk is digested from outside.
const FEATURES: &str = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,large_file,sparse_super";

/// Copying a large tree takes a while; a hang takes longer.
const LIMIT: Duration = Duration::from_secs(600);
/// How often it is looked whether to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// How much of the end of its messages an error shows, in bytes.
const MESSAGE_LIMIT: u64 = 4096;

/// A file system to be made.
pub(super) struct Filesystem<'a> {
    /// The file that receives it; made beforehand, so that its mode is ours.
    pub(super) image: &'a Path,
    /// The tree to copy into it.
    pub(super) tree: &'a Path,
    pub(super) uuid: &'a str,
    pub(super) size_mib: u64,
    pub(super) inodes: u64,
}

/// `mke2fs`, found.
pub(super) struct Mke2fs {
    program: PathBuf,
}

impl Mke2fs {
    /// Looks for it in `directories`, in their order.
    pub(super) fn find(directories: &[PathBuf]) -> Result<Mke2fs, Error> {
        directories
            .iter()
            .map(|dir| dir.join("mke2fs"))
            .find(|program| program.is_file())
            .map(|program| Mke2fs { program })
            .ok_or_else(|| Error::Mke2fsMissing {
                searched: if directories.is_empty() {
                    "an empty search path".to_owned()
                } else {
                    directories
                        .iter()
                        .map(|dir| dir.display().to_string())
                        .collect::<Vec<_>>()
                        .join(":")
                },
            })
    }

    /// Makes an ext4 with 4 KiB blocks. `scratch` is a directory for its messages.
    pub(super) fn run(
        &self,
        filesystem: &Filesystem<'_>,
        scratch: &Path,
        stop: Stop<'_>,
    ) -> Result<(), Error> {
        let path = filesystem.image;
        // Into a file, as a full pipe would stop it.
        let mut messages =
            tempfile::tempfile_in(scratch).map_err(Error::io("create a file in", scratch))?;
        let stdio = |file: &File| {
            file.try_clone()
                .map(Stdio::from)
                .map_err(Error::io("duplicate a file in", scratch))
        };
        let epoch = EPOCH.to_string();
        let mut child = Command::new(&self.program)
            .args([
                "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-O", FEATURES,
            ])
            .args(["-U", filesystem.uuid, "-L", "", "-E"])
            .arg(format!(
                "hash_seed={HASH_SEED},root_owner=0:0,lazy_itable_init=0,nodiscard"
            ))
            .arg("-N")
            .arg(filesystem.inodes.to_string())
            .arg("-d")
            .arg(filesystem.tree)
            .arg(path)
            .arg((filesystem.size_mib * MIB / 4096).to_string())
            .env("MKE2FS_CONFIG", "/dev/null")
            // The older and the newer name of the same thing.
            .env("E2FSPROGS_FAKE_TIME", &epoch)
            .env("SOURCE_DATE_EPOCH", &epoch)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(stdio(&messages)?)
            .stderr(stdio(&messages)?)
            .spawn()
            .map_err(Error::io("run", &self.program))?;
        let waited = wait(&mut child, LIMIT, stop);
        if !matches!(waited, Ok(Some(_))) {
            // Killed before it's reaped, so this can't hit another process.
            let _ = child.kill();
            let _ = child.wait();
        }
        match waited.map_err(Error::io("wait for", &self.program))? {
            None if stop.is_requested() => Err(Error::Stopped),
            None => Err(Error::Mke2fsTimeout {
                path: path.into(),
                limit: LIMIT,
            }),
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                let stderr = tail(&mut messages)
                    .map_err(Error::io("read what was said by", &self.program))?;
                Err(Error::Mke2fsFailed {
                    path: path.into(),
                    status,
                    stderr,
                })
            }
        }
    }
}

/// Waits for the child's end; `None` when the limit has passed or it is to stop.
fn wait(child: &mut Child, limit: Duration, stop: Stop<'_>) -> std::io::Result<Option<ExitStatus>> {
    let pidfd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let end = std::time::Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
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

fn tail(messages: &mut File) -> std::io::Result<String> {
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
