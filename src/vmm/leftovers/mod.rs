//! Clearing away what an earlier agent, now dead, left behind.
//!
//! The VMMs of an earlier agent may have been taken over by their guests, so nothing that one of them could have written is
//! believed, and nothing that one of them could have made may stop the clearing:
//!
//! - A process is killed only if its own environment has the name of the run directory ([`MARK`]): a process can't give that
//!   to one that it didn't start. The record of the directory, in which no confined VMM can write, only says where to look
//!   first.
//! - Of the files that are opened, links aren't followed and FIFOs aren't waited for.
//! - All of it has one time limit. What isn't done by then is left to the next start.

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

/// How long a spawn may be held up by what was left behind.
const BEFORE_A_SPAWN: Duration = Duration::from_secs(1);

/// How long a call for the purpose may take: VMMs with much memory die slowly.
const LIMIT: Duration = Duration::from_secs(10);

/// How often processes are looked for: each time finds those that were forked while the last ones were killed.
const ROUNDS: usize = 8;

/// Something below the run root that no living agent owns, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reclaimed {
    /// Where it is or was.
    pub path: PathBuf,
    /// What was done.
    pub action: Action,
    /// The last 16 KiB of the log of the VMM that was left there.
    pub log_tail: String,
}

/// What [`reclaim`] did about something that it found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The run directory was removed; its VMM had ended.
    Removed,
    /// The VMM, or what it had forked, had survived its agent. All of it was killed and the run directory removed.
    Killed {
        /// The process ids, in no particular order.
        pids: Vec<u32>,
    },
    /// Nothing was touched, or not all that should be.
    LeftAlone(LeftAlone),
}

/// Why [`reclaim`] left something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeftAlone {
    /// It isn't a run directory of ours by its name, its owner or its kind (a symbolic link, say).
    #[error("it is no run directory of this user")]
    NotOurs,
    /// A process of it is still there, because it can't be killed or doesn't die.
    #[error("its process {pid} can't be ended: {reason}")]
    VmmStays {
        /// The process id.
        pid: u32,
        /// What is in the way.
        reason: String,
    },
    /// The process that is on record lives, and isn't provably of this run directory.
    #[error(
        "the process {pid} that is on record can't be shown to be its VMM: end it by hand if it is"
    )]
    NotProved {
        /// The process id.
        pid: u32,
    },
    /// It holds more than could be removed in the time. The next call goes on.
    #[error("it holds more than can be removed in the time; the next start goes on")]
    TooMuch,
    /// The kernel refused a step.
    #[error("it can't be examined or removed: {reason}")]
    Refused {
        /// What the kernel says.
        reason: String,
    },
}

/// Finds what dead agents left below `run_root`, kills the VMMs that survived them with whatever those forked, and removes
/// their run directories and control groups.
///
/// An agent lives as long as the lock in its run directory is taken. A process is killed only if it was started for that
/// run directory, which its environment says; everything else is left as it is and reported. A directory whose agent lives
/// isn't even mentioned. What is found is also logged as a warning with `tracing`. Every
/// [`Vmm::spawn`](super::Vmm::spawn) does the same, for at most a second. A run root that doesn't exist has nothing to
/// reclaim.
///
/// This blocks, for at most 10 s.
///
/// # Errors
///
/// [`Error::RunRoot`] when the run root isn't a directory that only this user can change, and [`Error::RunDir`] when it
/// can't be listed.
pub fn reclaim(run_root: &Path) -> Result<Vec<Reclaimed>, Error> {
    within(run_root, LIMIT)
}

/// The same, before a VMM is started.
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
            tracing::warn!(path = %run_root.display(), "the run root holds too much to be looked through");
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
            tracing::debug!(%path, "not ours; left alone");
        }
        Action::LeftAlone(reason) => {
            tracing::warn!(%path, %reason, "an earlier agent left this; it stays");
        }
        action @ (Action::Removed | Action::Killed { .. }) => {
            tracing::warn!(
                %path, ?action, log_tail = reclaimed.log_tail,
                "an earlier agent left this; cleared away"
            );
        }
    }
}

/// Takes over what a dead agent left. `None` if there is nothing to say: its agent lives, or another process just removed
/// it.
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

/// Kills every process that was started for one of these run directories, with what those have forked.
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
            // Between the look and the handle, the id may have become another's: look again, through the handle's stamp.
            let Ok(process) = Process::open(pid, 0) else {
                continue;
            };
            let is_marked = procfs::is_marked(pid, &mark) && !process.has_ended();
            if is_marked && let Err(error) = process.signal(Signal::KILL) {
                tracing::warn!(pid, error = %Causes(&error), "a process of an earlier agent's VMM couldn't be killed");
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
                reason: "it is still there after SIGKILL".to_owned(),
            });
        }
    }
    if killed.is_empty()
        && let Some(process) = recorded(run_dir)
    {
        // One that is dying has lost its environment before its descriptors.
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

/// The process that is on record, if it is still there.
fn recorded(run_dir: &RunDir) -> Option<Process> {
    let record = Record::read(&run_dir.record()).ok()?;
    let stamp = read_stamp(&run_dir.stat()).ok()?;
    let this_boot = procfs::boot_id().is_ok_and(|boot_id| boot_id == record.boot_id);
    let process = Process::open(stamp.pid, record.listener_inode).ok()?;
    let is_the_same = this_boot && process.stamp == stamp && !process.has_ended();
    (is_the_same && procfs::owner(stamp.pid).ok() == Some(record.uid)).then_some(process)
}

/// The control group that is on record, if its name is that of the run directory's.
fn recorded_cgroup(run_dir: &RunDir) -> Option<PathBuf> {
    let path = Record::read(&run_dir.record()).ok()?.cgroup?;
    let name = run_dir.cgroup_name();
    (path.file_name()? == name.as_str()).then_some(path)
}
