//! A control group for each run of a tool ([`Group`]), which limits the memory and the number of all processes of the
//! run together.
//!
//! A control group counts the memory that is used. A limit on address space would instead stop runtimes that reserve
//! much memory and use little.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::limits::{Limits, MIB};
use crate::causes::Causes;
use crate::mutex::lock;

/// The controllers that the parent group must enable for its children.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// The groups of all runs.
#[derive(Debug)]
pub(super) struct Cgroups {
    parent: PathBuf,
    /// How many groups were made so far.
    made: AtomicU64,
    /// Groups that could not be removed yet, since processes that a tool left still run in them.
    left: Mutex<Vec<PathBuf>>,
}

impl Cgroups {
    /// Makes groups below `parent`, a directory of the cgroup v2 file system.
    ///
    /// # Errors
    ///
    /// If the kernel lacks a controller, or this process may not enable it for `parent`.
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
        // The process id keeps the names apart from those of groups that an earlier dispatcher of this guest left.
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
                // This kernel doesn't account for swap.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                set => set?,
            }
        }
        if let Some(processes) = limits.processes {
            group.set("pids.max", processes)?;
        }
        Ok(group)
    }

    /// Removes a group, and earlier groups in which no process runs any more.
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

/// The control group of one run. Processes that still run in it when this is dropped run on within the same limits; the
/// group is then removed together with a later one.
#[derive(Debug)]
pub(super) struct Group {
    groups: Arc<Cgroups>,
    path: PathBuf,
    processes: File,
}

impl Group {
    /// The group's `cgroup.procs`. A process that writes `0` to it enters the group.
    pub(super) fn processes(&self) -> BorrowedFd<'_> {
        self.processes.as_fd()
    }

    /// Kills every process in the group.
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
