//! A VMM's process with whatever it has forked.
//!
//! Where the VMM has a process namespace or a control group of its own, the kernel ends its forks with it. Elsewhere they
//! are looked for: the descendants before the VMM is killed, since afterwards nothing tells whose they were; and after it
//! has ended, every process that has the mark of the run directory in its environment or the VMM's listener among its
//! descriptors. A fork that has wiped its environment, closed the listener and left its parent isn't found; the reports
//! of the layers say that nothing caught it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::sync::Arc;

use rustix::process::Signal;

use super::confinement::Cgroup;
use super::{Process, procfs};

/// How often the descendants are looked for: each time finds those that were forked while the last ones were killed.
const ROUNDS: usize = 8;

/// The process of a VMM, and what is known of its forks.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) process: Process,
    /// The run directory's name, which is in the environment of each of its processes.
    pub(super) mark: OsString,
    /// Whether the kernel ends the forks with the process.
    pub(super) is_caught: bool,
    pub(super) cgroup: Option<Arc<Cgroup>>,
}

impl Family {
    /// Kills the process and its forks. One that has ended is no error.
    pub(super) fn kill(&self) -> io::Result<()> {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if self.is_caught {
            return self.process.signal(Signal::KILL);
        }
        // What is stopped forks no more.
        self.process.signal(Signal::STOP)?;
        for _ in 0..ROUNDS {
            let killed = kill_found(|| procfs::descendants(self.process.pid()));
            if self.process.has_ended() || killed == 0 {
                break;
            }
        }
        self.process.signal(Signal::KILL)
    }

    /// Kills what is left of the forks of a process that has ended; how many there were.
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

/// Kills the processes that `find` finds, none of them this one; how many there were.
///
/// A process may end after it was found, and another one get its id. So each is held by a handle, and is killed only if it
/// is found again while the handle's process lives.
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
            tracing::warn!(pid, "a process that a VMM had forked was killed");
            killed += 1;
        }
    }
    killed
}
