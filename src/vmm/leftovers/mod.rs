//! [`reclaim`] kills the VMMs that an earlier, dead agent has left, and removes their run directories.
//!
//! The guests of an earlier agent may have taken over their VMMs. So this module does not trust anything that such a
//! VMM could have written, and a file that such a VMM has made can't block it:
//!
//! - A process is killed only if its own environment contains the name of the run directory (the variable `MARK`). A
//!   process can set that only for processes that it starts. The record in the directory, which no confined VMM can
//!   write, only tells where to look first.
//! - When a file is opened, symbolic links are not followed and FIFOs are not waited for.
//! - The whole work has one time limit. The next start does the rest.

mod record;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::confinement::{kill_cgroup, remove_cgroup};
use super::output::tail_of;
use super::run_dir::RunDir;
use super::{Error, Process, procfs, run_root};
use crate::causes::Causes;

pub(super) use record::Record;
use record::read_stamp;

/// How long a spawn may be delayed by this work.
const BEFORE_A_SPAWN: Duration = Duration::from_secs(1);

/// How long a call of [`reclaim`] may take. VMMs with much memory die slowly.
const LIMIT: Duration = Duration::from_secs(10);

/// How often the search for processes is repeated. Each round finds the processes that were forked while those of the
/// round before were killed.
const ROUNDS: usize = 8;

/// A file or directory below the run root that no living agent owns, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reclaimed {
    /// The path, which may have been removed.
    pub path: PathBuf,
    /// What was done about it.
    pub action: Action,
    /// The last 16 KiB of the log of the VMM whose run directory it was, as text that is
    /// [safe to show](crate::sanitize::lines). Empty if there is none, or if the path could not be taken over.
    pub log_tail: String,
}

/// What [`reclaim`] did about a path that it found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The run directory was removed. Its VMM had ended already.
    Removed,
    /// The VMM or its forks had survived their agent. They were killed, and the run directory was removed.
    Killed {
        /// The process ids, in no particular order.
        pids: Vec<u32>,
    },
    /// The path was left as it is, or not removed completely.
    LeftAlone(LeftAlone),
}

/// Why [`reclaim`] left a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeftAlone {
    /// The path is not a run directory of this user, by its name, its owner or its type (for instance a symbolic link).
    #[error("it is not a run directory of this user")]
    NotOurs,
    /// A process of the run directory can't be killed, or has not ended in time.
    #[error("its process {pid} can't be ended: {reason}")]
    VmmStays {
        /// The process id.
        pid: u32,
        /// Why the process can't be ended.
        reason: String,
    },
    /// The recorded process is running, but its environment does not prove that it belongs to this run directory.
    #[error(
        "the recorded process {pid} is not proved to be its VMM: end that process by hand if it is"
    )]
    NotProved {
        /// The process id.
        pid: u32,
    },
    /// The run directory contains more than could be removed in time. The next call continues.
    #[error("it contains more than can be removed in time; the next start continues")]
    TooMuch,
    /// The kernel refused a step.
    #[error("it can't be examined or removed: {reason}")]
    Refused {
        /// The kernel's error.
        reason: String,
    },
}

/// Kills the VMMs that survived their agents, with their forks, and removes the run directories and control groups that
/// dead agents have left below `run_root`.
///
/// An agent counts as alive while the lock in its run directory is held. A run directory of a living agent is neither
/// touched nor reported. The lock may outlast the agent by some milliseconds, in a child that it was about to start and
/// that then ends by itself; the next call removes such a directory.
///
/// A process is killed only if its environment shows that it was started for the run directory of a dead agent. Anything
/// else is left as it is and reported. All findings are also logged with `tracing`. Every
/// [`Vmm::spawn`](super::Vmm::spawn) does the same first, for at most 1 s. If the run root doesn't exist, there is
/// nothing to do.
///
/// Blocks for at most 10 s.
///
/// # Errors
///
/// - [`Error::RunRoot`]: the run root isn't a directory that only this user can change.
/// - [`Error::RunDir`]: the run root can't be listed.
pub fn reclaim(run_root: &Path) -> Result<Vec<Reclaimed>, Error> {
    within(run_root, LIMIT)
}

/// Does the work of [`reclaim`] before a VMM is started, within the shorter limit.
pub(super) fn before_a_spawn(run_root: &Path) -> Result<Vec<Reclaimed>, Error> {
    within(run_root, BEFORE_A_SPAWN)
}

fn within(run_root: &Path, limit: Duration) -> Result<Vec<Reclaimed>, Error> {
    if !run_root.try_exists().unwrap_or(true) {
        return Ok(Vec::new());
    }
    run_root::check(run_root)?;
    let deadline = Instant::now() + limit;
    let listing = |source| Error::run_dir("list the run root", run_root)(source);
    let (mut dead, mut reclaimed) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(run_root).map_err(listing)? {
        if Instant::now() >= deadline {
            tracing::warn!(path = %run_root.display(), "the run root has too many entries to be examined in time");
            break;
        }
        match take_over(entry.map_err(listing)?.path()) {
            Ok(Some(run_dir)) => dead.push(run_dir),
            Ok(None) => {}
            Err(left) => reclaimed.push(left),
        }
    }
    if !dead.is_empty() {
        reclaimed.extend(clear(&dead, deadline));
    }
    reclaimed.iter().for_each(report);
    Ok(reclaimed)
}

fn report(reclaimed: &Reclaimed) {
    let path = reclaimed.path.display();
    match &reclaimed.action {
        Action::LeftAlone(LeftAlone::NotOurs) => {
            tracing::debug!(%path, "not a run directory of this user: left as it is");
        }
        Action::LeftAlone(reason) => {
            tracing::warn!(%path, %reason, "cannot remove a run directory of an earlier agent");
        }
        action @ (Action::Removed | Action::Killed { .. }) => {
            tracing::warn!(
                %path, ?action, log_tail = reclaimed.log_tail,
                "removed a run directory of an earlier agent"
            );
        }
    }
}

/// Takes over the run directory of a dead agent. Returns `None` if its agent is alive, or if another process has just
/// removed it.
fn take_over(path: PathBuf) -> Result<Option<RunDir>, Reclaimed> {
    let left = |reason| Reclaimed {
        path: path.clone(),
        action: Action::LeftAlone(reason),
        log_tail: String::new(),
    };
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(left(LeftAlone::Refused {
            reason: Causes(&error).to_string(),
        })),
    };
    match is_ours(&path) {
        Ok(true) => RunDir::take_over(&path).or_else(refused),
        Ok(false) => Err(left(LeftAlone::NotOurs)),
        Err(error) => refused(error),
    }
}

fn is_ours(path: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(path.file_name().is_some_and(RunDir::is_name)
        && metadata.is_dir()
        && metadata.uid() == rustix::process::geteuid().as_raw())
}

/// Ends the processes of these run directories, whose agents are dead, and removes the directories.
fn clear(dead: &[RunDir], deadline: Instant) -> Vec<Reclaimed> {
    for cgroup in dead.iter().filter_map(recorded_cgroup) {
        kill_cgroup(&cgroup);
    }
    let killed = kill_marked(dead, deadline);
    let reclaimed = dead.iter().map(|run_dir| {
        let log_tail = tail_of(&run_dir.log()).unwrap_or_default();
        let of_this = killed.iter().filter(|(_, mark)| mark == run_dir.name());
        let processes: Vec<&Process> = of_this.map(|(process, _)| process).collect();
        Reclaimed {
            path: run_dir.path().to_owned(),
            action: finish(run_dir, &processes, deadline).unwrap_or_else(Action::LeftAlone),
            log_tail,
        }
    });
    reclaimed.collect()
}

/// Kills every process that was started for one of these run directories, with its forks.
fn kill_marked(dead: &[RunDir], deadline: Instant) -> Vec<(Process, OsString)> {
    let marks: HashSet<OsString> = dead
        .iter()
        .map(|run_dir| run_dir.name().to_owned())
        .collect();
    let mut killed: Vec<(Process, OsString)> = Vec::new();
    for _ in 0..ROUNDS {
        let mut found = procfs::marked(&marks);
        found.retain(|(pid, _)| {
            let is_known = killed.iter().any(|(process, _)| process.pid() == *pid);
            *pid != std::process::id() && !is_known
        });
        if found.is_empty() || Instant::now() >= deadline {
            break;
        }
        for (pid, mark) in found {
            // The process may have ended since it was found, and its id may be another process's now. So the mark is
            // read again after the process was opened.
            let Ok(process) = Process::open(pid, 0) else {
                continue;
            };
            let is_marked = procfs::is_marked(pid, &mark) && !process.has_ended();
            if is_marked && let Err(error) = process.signal(Signal::KILL) {
                tracing::warn!(pid, error = %Causes(&error), "cannot kill a process of an earlier agent's VMM");
            }
            if is_marked {
                killed.push((process, mark));
            }
        }
    }
    killed
}

/// Waits for the end of the `killed` processes of a run directory and removes it.
fn finish(run_dir: &RunDir, killed: &[&Process], deadline: Instant) -> Result<Action, LeftAlone> {
    let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
    for process in killed {
        if !process.wait_until_ended(left(deadline)) {
            return Err(LeftAlone::VmmStays {
                pid: process.pid(),
                reason: "it has not ended after SIGKILL".to_owned(),
            });
        }
    }
    if killed.is_empty()
        && let Some(process) = recorded(run_dir)
    {
        // A dying process loses its environment before its descriptors, so it is waited for.
        let is_dying = procfs::has_lost_its_environment(process.pid());
        let limit = if is_dying {
            left(deadline)
        } else {
            Duration::ZERO
        };
        if !process.wait_until_ended(limit) {
            return Err(LeftAlone::NotProved { pid: process.pid() });
        }
    }
    if let Some(cgroup) = recorded_cgroup(run_dir) {
        remove_cgroup(&cgroup);
    }
    let refused = |error: io::Error| LeftAlone::Refused {
        reason: Causes(&error).to_string(),
    };
    match (run_dir.try_remove(deadline).map_err(refused)?, killed) {
        (false, _) => Err(LeftAlone::TooMuch),
        (true, []) => Ok(Action::Removed),
        (true, killed) => {
            let pids = killed.iter().map(|process| process.pid()).collect();
            Ok(Action::Killed { pids })
        }
    }
}

/// Returns the recorded process, if it is still running.
fn recorded(run_dir: &RunDir) -> Option<Process> {
    let record = Record::read(&run_dir.record()).ok()?;
    let stamp = read_stamp(&run_dir.stat()).ok()?;
    let this_boot = procfs::boot_id().is_ok_and(|boot_id| boot_id == record.boot_id);
    let process = Process::open(stamp.pid, record.listener_inode).ok()?;
    let is_the_same = this_boot && process.stamp == stamp && !process.has_ended();
    (is_the_same && procfs::owner(stamp.pid).ok() == Some(record.uid)).then_some(process)
}

/// Returns the recorded control group, if its name is the one that belongs to the run directory.
fn recorded_cgroup(run_dir: &RunDir) -> Option<PathBuf> {
    let path = Record::read(&run_dir.record()).ok()?.cgroup?;
    let name = run_dir.cgroup_name();
    (path.file_name()? == name.as_str()).then_some(path)
}
