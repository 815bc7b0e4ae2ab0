//! [`version_of`]: runs an executable with `--version` to find its release.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::causes::Causes;
use crate::client::Release;

/// The most bytes of output that are read. The release is in the first line.
const MOST: usize = 4096;

/// How long an executable may take to print it.
const LIMIT: Duration = Duration::from_secs(3);

/// Why an executable's release isn't known.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoVersion {
    /// It can't be executed.
    #[error("it can't be executed")]
    Start(#[source] io::Error),
    /// It printed another text than Cloud Hypervisor prints, or nothing within the time limit.
    #[error("`--version` printed {0:?}, not a release of Cloud Hypervisor")]
    Other(String),
}

/// Runs `binary --version` and parses the release from `cloud-hypervisor v53.0`. Kills every process that the
/// executable started in its process group.
pub(super) fn version_of(binary: &Path) -> Result<Release, NoVersion> {
    let mut child = Command::new(binary)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(NoVersion::Start)?;
    let said = child.stdout.take().map(read).unwrap_or_default();
    // The number of its process group isn't reused until the child is waited for.
    let killed = kill_process_group(Pid::from_child(&child), Signal::KILL);
    if let Err(error) = killed.map_err(io::Error::from).and_then(|()| child.wait()) {
        tracing::warn!(error = %Causes(&error), "a VMM that was started for its version may still be running");
    }
    let line = said.lines().next().unwrap_or_default();
    let release = line
        .strip_prefix("cloud-hypervisor ")
        .and_then(|release| release.trim().parse().ok());
    release.ok_or_else(|| NoVersion::Other(line.chars().take(64).collect()))
}

/// Reads until the end, the limit in bytes or the limit in time, whichever comes first.
fn read(mut from: impl Read + std::os::fd::AsFd) -> String {
    let end = Instant::now() + LIMIT;
    let mut bytes = Vec::new();
    let mut chunk = [0; 512];
    while bytes.len() < MOST {
        let left = end.saturating_duration_since(Instant::now());
        let Ok(left) = Timespec::try_from(left) else {
            break;
        };
        match poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => continue,
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        match from.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Place;
    use super::*;

    #[test]
    fn only_a_cloud_hypervisor_has_a_release() {
        let place = Place::new();
        let told = |script: &str| version_of(&place.program("vmm", script));
        let release = told("echo cloud-hypervisor v51.2-dirty; echo more").unwrap();
        assert_eq!(release, Release::new(51, 2));
        for script in ["echo qemu 9", "echo cloud-hypervisor next", "exit 1", "yes"] {
            let error = told(script).unwrap_err();
            assert!(matches!(error, NoVersion::Other(_)), "{script}: {error}");
        }
        let error = version_of(&place.write("plain", "")).unwrap_err();
        assert!(matches!(error, NoVersion::Start(_)), "{error}");
    }

    #[test]
    fn processes_that_it_leaves_running_cause_no_delay() {
        let place = Place::new();
        let script = "sleep 1000 & echo cloud-hypervisor v53.0; for i in $(seq 400); do echo 0123456789; done";
        assert_eq!(
            version_of(&place.program("vmm", script)).unwrap(),
            Release::new(53, 0)
        );
    }
}
