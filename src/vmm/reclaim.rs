//! Clearing away what an earlier agent, now dead, left behind.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Signal;

use super::identity::{Record, read_stamp};
use super::log::tail_of;
use super::run_dir::RunDir;
use super::{Error, Process, procfs, run_root};

/// How long a VMM that was left behind may take to die of SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

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
    /// The VMM had survived its agent. It was killed and the run directory removed.
    Killed {
        /// Its process id.
        pid: u32,
    },
    /// Nothing was touched.
    LeftAlone(LeftAlone),
}

/// Why [`reclaim`] touched nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeftAlone {
    /// It isn't a run directory of ours by its name, its owner or its kind (a symbolic link, say).
    #[error("it is no run directory of this user")]
    NotOurs,
    /// The VMM is still there, because it can't be killed or doesn't die.
    #[error("its VMM (pid {pid}) can't be ended: {reason}")]
    VmmStays {
        /// The VMM's process id.
        pid: u32,
        /// What is in the way.
        reason: String,
    },
    /// Somebody serves the api-socket who isn't provably the VMM that was left there.
    #[error("somebody unknown serves its api-socket")]
    UnknownServer,
    /// The kernel refused a step.
    #[error("it can't be examined or removed: {reason}")]
    Refused {
        /// What the kernel says.
        reason: String,
    },
}

/// Finds what dead agents left below `run_root`, kills the VMMs that survived them, and removes their run directories.
///
/// An agent lives as long as the lock in its run directory is taken. A process is killed only if it is certainly
/// the VMM of that directory: in this boot of the machine, with the process id and start time on record, and
/// with the directory's api-socket listener among its descriptors. If its descriptors can't be seen, because its
/// executable has file capabilities and this process has not, the listener must at least be alive.
///
/// Everything else is left as it is and reported; a directory whose agent lives isn't even mentioned. What is found
/// is also logged as a warning with `tracing`. Called by every [`Vmm::spawn`](super::Vmm::spawn). A run root that doesn't
/// exist has nothing to reclaim.
///
/// This blocks: up to 10 s for each VMM that doesn't die at once.
///
/// # Errors
///
/// [`Error::RunRoot`] when the run root isn't a directory that only this user can change, and [`Error::RunDir`] when it
/// can't be listed.
pub fn reclaim(run_root: &Path) -> Result<Vec<Reclaimed>, Error> {
    if !run_root.try_exists().unwrap_or(true) {
        return Ok(Vec::new());
    }
    run_root::check(run_root)?;
    let listing = |source| Error::run_dir("list the run root", run_root)(source);
    let mut found = Vec::new();
    for entry in fs::read_dir(run_root).map_err(listing)? {
        let path = entry.map_err(listing)?.path();
        if let Some(reclaimed) = reclaim_one(path) {
            report(&reclaimed);
            found.push(reclaimed);
        }
    }
    Ok(found)
}

fn report(reclaimed: &Reclaimed) {
    let path = reclaimed.path.display();
    match &reclaimed.action {
        Action::LeftAlone(LeftAlone::NotOurs) => {
            tracing::debug!(%path, "not ours; left alone");
        }
        Action::LeftAlone(reason) => {
            tracing::warn!(%path, %reason, "an earlier agent left this; left alone");
        }
        action @ (Action::Removed | Action::Killed { .. }) => {
            tracing::warn!(
                %path, ?action, log_tail = reclaimed.log_tail,
                "an earlier agent left this; cleared away"
            );
        }
    }
}

/// `None` if there is nothing to say: its agent lives, or somebody else just removed it.
fn reclaim_one(path: PathBuf) -> Option<Reclaimed> {
    let left_alone = |reason| Reclaimed {
        path: path.clone(),
        action: Action::LeftAlone(reason),
        log_tail: String::new(),
    };
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => None,
        _ => Some(left_alone(LeftAlone::Refused {
            reason: error.to_string(),
        })),
    };
    match is_ours(&path) {
        Ok(true) => {}
        Ok(false) => return Some(left_alone(LeftAlone::NotOurs)),
        Err(error) => return refused(error),
    }
    let run_dir = match RunDir::take_over(&path) {
        Ok(Some(run_dir)) => run_dir,
        Ok(None) => return None,
        Err(error) => return refused(error),
    };
    let log_tail = tail_of(&run_dir.log()).unwrap_or_default();
    let action = match end_vmm(&run_dir) {
        Ok(killed) => match run_dir.try_remove() {
            Ok(()) => killed.map_or(Action::Removed, |pid| Action::Killed { pid }),
            Err(error) => Action::LeftAlone(LeftAlone::Refused {
                reason: error.to_string(),
            }),
        },
        Err(reason) => Action::LeftAlone(reason),
    };
    Some(Reclaimed {
        path,
        action,
        log_tail,
    })
}

fn is_ours(path: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(path.file_name().is_some_and(RunDir::is_name)
        && metadata.is_dir()
        && metadata.uid() == rustix::process::geteuid().as_raw())
}

/// Makes sure that the VMM of a run directory whose agent is dead is dead too; says whom it had to kill.
fn end_vmm(run_dir: &RunDir) -> Result<Option<u32>, LeftAlone> {
    let api_socket = run_dir.api_socket();
    let is_served = || {
        is_served(&api_socket).map_err(|error| LeftAlone::Refused {
            reason: error.to_string(),
        })
    };
    let mut killed = None;
    if let Some((process, listener_inode)) = recorded(run_dir) {
        match procfs::holds_socket(process.pid(), listener_inode) {
            Ok(true) => killed = Some(kill(&process)?),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_served()? => {
                killed = Some(kill(&process)?);
            }
            // It is dying: its first thread is gone, and the others are about to close what they shared.
            Err(error) if error.kind() == io::ErrorKind::NotFound => wait_until_ended(&process)?,
            Ok(false) | Err(_) => {}
        }
    }
    if is_served()? {
        return Err(LeftAlone::UnknownServer);
    }
    Ok(killed)
}

/// The process that is on record if it is still there, held so that it can't be mistaken for another any more, and the
/// inode of its listener.
///
/// A record that can't be read names nobody. The check for somebody who serves the api-socket keeps that safe.
fn recorded(run_dir: &RunDir) -> Option<(Process, u64)> {
    let record = Record::read(&run_dir.record()).ok()?;
    let stamp = read_stamp(&run_dir.stat()).ok()?;
    let this_boot = procfs::boot_id().is_ok_and(|boot_id| boot_id == record.boot_id);
    let process = Process::open(stamp.pid, record.listener_inode).ok()?;
    let is_the_same = this_boot && process.stamp == stamp && !process.has_ended();
    is_the_same.then_some((process, record.listener_inode))
}

fn kill(process: &Process) -> Result<u32, LeftAlone> {
    // Its group isn't signalled: when the VMM has ended, the group's id may be anybody's. A VMM starts no processes.
    process
        .signal(Signal::KILL)
        .map_err(|error| LeftAlone::VmmStays {
            pid: process.pid(),
            reason: error.to_string(),
        })?;
    wait_until_ended(process)?;
    Ok(process.pid())
}

fn wait_until_ended(process: &Process) -> Result<(), LeftAlone> {
    if process.wait_until_ended(KILL_LIMIT) {
        return Ok(());
    }
    Err(LeftAlone::VmmStays {
        pid: process.pid(),
        reason: format!("it is alive {KILL_LIMIT:?} after it was killed"),
    })
}

/// Whether anybody has the listener of this socket open.
fn is_served(socket: &Path) -> io::Result<bool> {
    use rustix::io::Errno;

    let address = SocketAddrUnix::new(socket)?;
    let probe = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    match rustix::net::connect(&probe, &address) {
        // A full queue (EAGAIN) is one that somebody keeps open.
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
