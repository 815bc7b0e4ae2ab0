//! [`ProcessTree`]: a VMM's process together with the processes that it has forked.
//!
//! If the VMM has its own process namespace or control group, the kernel ends its forks with it. Otherwise this module
//! searches for them. Before the VMM is killed, it searches for the VMM's descendants, since a descendant can't be
//! recognised once its parent is gone. After the VMM has ended, it searches for every process that has the mark of the
//! run directory in its environment, or the VMM's listener among its descriptors. A fork that has cleared its
//! environment, closed the listener and left its parent is not found. The reports of the layers show that no layer ends
//! such forks.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::sync::Arc;

use rustix::process::Signal;

use super::confinement::Cgroup;
use super::{Process, procfs};

/// How often the search is repeated. Each round finds the processes that were forked while those of the round before
/// were killed.
const ROUNDS: usize = 8;

/// The process of a VMM, with the means to find and kill its forks.
#[derive(Clone, Debug)]
pub(super) struct ProcessTree {
    pub(super) process: Process,
    /// The run directory's name, which is in the environment of each process of the tree.
    pub(super) mark: OsString,
    /// Whether the kernel ends the forks with the process.
    pub(super) is_caught: bool,
    pub(super) cgroup: Option<Arc<Cgroup>>,
}

impl ProcessTree {
    /// Kills the process and its forks. It is not an error if the process has ended already.
    pub(super) fn kill(&self) -> io::Result<()> {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if self.is_caught {
            return self.process.signal(Signal::KILL);
        }
        // A stopped process can't fork.
        self.process.signal(Signal::STOP)?;
        for _ in 0..ROUNDS {
            let killed = kill_found(|| procfs::descendants(self.process.pid()));
            if self.process.has_ended() || killed == 0 {
                break;
            }
        }
        self.process.signal(Signal::KILL)
    }

    /// Kills the remaining forks of a process that has ended, and returns how many it killed.
    pub(super) fn kill_left(&self) -> usize {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if self.is_caught {
            return 0;
        }
        let left = || {
            let marked = procfs::marked(&HashSet::from([self.mark.clone()]));
            let mut found: Vec<u32> = marked.into_iter().map(|(pid, _)| pid).collect();
            found.extend(procfs::holders_of_socket(self.process.listener_inode));
            found.retain(|&pid| pid != self.process.pid());
            found
        };
        let mut killed = 0;
        for _ in 0..ROUNDS {
            match kill_found(left) {
                0 => break,
                count => killed += count,
            }
        }
        killed
    }
}

/// Kills the processes that `find` finds, except this one, and returns how many it killed.
///
/// A process may end after it was found, and its id may be given to another process. So each process is opened as a
/// pidfd, and is killed only if `find` finds its id again while the process of the pidfd is still running.
fn kill_found(find: impl Fn() -> Vec<u32>) -> usize {
    let own = std::process::id();
    let held = find().into_iter().filter(|&pid| pid != own);
    let held: Vec<Process> = held.filter_map(|pid| Process::open(pid, 0).ok()).collect();
    if held.is_empty() {
        return 0;
    }
    let found = find();
    let mut killed = 0;
    for process in held {
        let pid = process.pid();
        let is_the_same = found.contains(&pid) && !process.has_ended();
        if is_the_same && process.signal(Signal::KILL).is_ok() {
            tracing::warn!(pid, "killed a process that a VMM had forked");
            killed += 1;
        }
    }
    killed
}
