//! A control group for each run of a tool: its memory and its processes, those together that it started.
//!
//! A limit on address space would kill runtimes that reserve much and use little. A control group counts what is used.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::confinement::{Limits, MIB};
use super::lock;
use crate::causes::Causes;

/// What a run's group needs of its parent.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// The groups of all runs.
#[derive(Debug)]
pub(super) struct Cgroups {
    parent: PathBuf,
    /// How many there were so far.
    made: AtomicU64,
    /// Those in which a tool has left processes that still ran when it ended.
    left: Mutex<Vec<PathBuf>>,
}

impl Cgroups {
    /// Makes groups below `parent`, a directory of the cgroup v2 file system.
    ///
    /// # Errors
    ///
    /// When the kernel lacks a controller, or this process may not use it there.
    pub(super) fn new(parent: &Path) -> io::Result<Cgroups> {
        for controller in CONTROLLERS {
            fs::write(
                parent.join("cgroup.subtree_control"),
                format!("+{controller}"),
            )?;
        }
        Ok(Cgroups {
            parent: parent.to_owned(),
            made: AtomicU64::new(0),
            left: Mutex::default(),
        })
    }

    /// A new group with these limits, in which nothing runs yet.
    pub(super) fn group(self: &Arc<Self>, limits: &Limits) -> io::Result<Group> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        // An earlier dispatcher of this guest may have left some.
        let path = self
            .parent
            .join(format!("tool-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Group {
            processes: File::options()
                .write(true)
                .open(path.join("cgroup.procs"))?,
            groups: Arc::clone(self),
            path,
        };
        if let Some(memory) = limits.memory_mib {
            group.set("memory.max", memory.saturating_mul(MIB))?;
            group.set("memory.oom.group", 1)?;
            match group.set("memory.swap.max", 0) {
                // A kernel that doesn't count swap.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                set => set?,
            }
        }
        if let Some(processes) = limits.processes {
            group.set("pids.max", processes)?;
        }
        Ok(group)
    }

    /// Removes a group, and those left before in which nothing runs any more.
    fn remove(&self, path: PathBuf) {
        let mut left = lock(&self.left);
        left.push(path);
        left.retain(|path| match fs::remove_dir(path) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => true,
            Err(error) => {
                tracing::warn!(error = %Causes(&error), "a tool's control group could not be removed");
                false
            }
        });
    }
}

/// The group of one run. What still runs in it when this is dropped runs on within the same limits, and the group is removed
/// with a later one.
#[derive(Debug)]
pub(super) struct Group {
    groups: Arc<Cgroups>,
    path: PathBuf,
    processes: File,
}

impl Group {
    /// A process that writes `0` here enters the group.
    pub(super) fn processes(&self) -> BorrowedFd<'_> {
        self.processes.as_fd()
    }

    /// Kills everything in it.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.set("cgroup.kill", 1)
    }

    fn set(&self, name: &str, value: u64) -> io::Result<()> {
        let mut file = File::options().write(true).open(self.path.join(name))?;
        write!(file, "{value}")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.groups.remove(std::mem::take(&mut self.path));
    }
}
