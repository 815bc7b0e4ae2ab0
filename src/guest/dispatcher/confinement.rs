//! [`Confinement`]: what a tool may do. The tool's own process applies it between fork and exec: root, user, limits,
//! Landlock domain and system calls.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use seccompiler::BpfProgram;

use super::cgroup::{Cgroups, Group};
use super::limits::{Limits, MIB};
use super::toolbox::Call;
use super::{landlock, seccomp};
use crate::causes::Causes;

/// Where a guest mounts the cgroup v2 file system.
pub(crate) const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Where a guest mounts a throwaway layer: in the initramfs, whose files are in memory.
const THROWAWAY_LAYER: &str = "/throwaway";

/// Protects this process, and every process that it starts from now on, from the kernel's OOM killer (`oom_score_adj`
/// -1000). A tool gives up this protection when it starts.
///
/// # Errors
///
/// The kernel's error. `PermissionDenied` if this process isn't root's.
pub(crate) fn be_killed_last() -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "-1000")
}

/// A tool's `oom_score_adj`, from -1000 to 1000: the OOM killer prefers tools to other processes.
const OOM_SCORE: &[u8] = b"500";

/// What a tool may do. It is applied between fork and exec, in this order: control group, session, root, limits, user,
/// directory, `no_new_privs`, Landlock domain, seccomp filter.
///
/// A tool also adopts its orphaned descendants (`PR_SET_CHILD_SUBREAPER`). So the dispatcher finds and kills every
/// process that the tool started when the tool reaches its deadline. Processes that a tool leaves when it ends in time
/// run on until the reset.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// The directory that is `/` for tools; with `None` tools have the dispatcher's root. After each tool the
    /// dispatcher syncs the directory's file system, so that everything that the tool wrote is on the disk before its
    /// result is sent. With `None` nothing is synced.
    pub root: Option<PathBuf>,
    /// The user and group id of tools, which have no supplementary groups; with `None` tools run as the dispatcher's
    /// user.
    pub user: Option<(u32, u32)>,
    /// The limits of a tool, unless the tools file has others for it. A limit that is `None` here applies to no tool,
    /// even if the tools file sets it for one. [`output_mib`](Limits::output_mib) is an exception: the tools file may
    /// always set it.
    pub limits: Limits,
    /// A directory of the cgroup v2 file system. Each run gets a group of its own below it, which enforces the limits
    /// on memory and processes. With `None`, or if groups can't be made there, which is logged, `setrlimit` enforces
    /// these limits.
    pub cgroup: Option<PathBuf>,
    /// Whether each run gets a Landlock domain of its own. A run in a domain can't trace or read processes outside of
    /// the domain and, from Linux 6.12 on, can't signal them. This includes other runs of the same user. Domains need
    /// Linux 5.19; on an older kernel only the user ids separate processes, which is logged.
    pub domain: bool,
    /// The directory on which the throwaway layer of a warm run is mounted. It is made for each warm run and removed
    /// afterwards. With `None`, for a stand-in that may not mount, a warm run writes to the same place as every other
    /// run.
    pub throwaway: Option<PathBuf>,
    /// Whether the kernel refuses the system calls that no tool needs, with EPERM. Without this filter a tool can have
    /// descendants that aren't killed at its deadline.
    pub seccomp: bool,
}

impl Confinement {
    /// The confinement inside a guest, whose dispatcher runs as root: tools run as user and group 1000 below `root`,
    /// with every restriction and the default limits.
    pub fn for_guest(root: Option<PathBuf>) -> Confinement {
        Confinement {
            root,
            user: Some((1000, 1000)),
            limits: Limits::default(),
            cgroup: Some(PathBuf::from(CGROUP_ROOT)),
            domain: true,
            throwaway: Some(PathBuf::from(THROWAWAY_LAYER)),
            seccomp: true,
        }
    }

    /// The confinement for a dispatcher inside an ordinary process, a stand-in for a guest: tools have the root and the
    /// user of the process, no control group and no [throwaway layer](Self::throwaway). They have a Landlock domain,
    /// the filter of system calls, and the default [`Limits`] with one exception: the number of processes isn't
    /// limited, since without a control group the kernel counts all processes of the user.
    pub fn in_process() -> Confinement {
        Confinement {
            user: None,
            limits: Limits {
                processes: None,
                ..Limits::default()
            },
            cgroup: None,
            throwaway: None,
            ..Confinement::for_guest(None)
        }
    }
}

/// A [`Confinement`] with everything that can be prepared once for all runs.
#[derive(Debug)]
pub(super) struct Prepared {
    root: Option<CString>,
    user: Option<(Uid, Gid)>,
    limits: Limits,
    cgroups: Option<Arc<Cgroups>>,
    domain: Option<OwnedFd>,
    filters: Vec<BpfProgram>,
}

impl Prepared {
    pub(super) fn new(confinement: &Confinement) -> io::Result<Prepared> {
        let root = confinement.root.as_deref();
        let cgroups = confinement.cgroup.as_deref().and_then(|parent| {
            let made = Cgroups::new(parent);
            let made = made.inspect_err(|error| {
                tracing::warn!(error = %Causes(error), "no control groups can be made: setrlimit enforces the limits of tools");
            });
            made.ok()
        });
        let domain = match confinement.domain {
            true => landlock::rules(root.unwrap_or(Path::new("/")))?,
            false => None,
        };
        if confinement.domain && domain.is_none() {
            tracing::warn!("the kernel has no Landlock: a tool can read the memory of other tools");
        }
        Ok(Prepared {
            root: root
                .map(|root| CString::new(root.as_os_str().as_bytes()))
                .transpose()?,
            user: confinement
                .user
                .map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group))),
            limits: confinement.limits.clone(),
            cgroups: cgroups.map(Arc::new),
            domain,
            filters: if confinement.seccomp {
                seccomp::filters().map_err(io::Error::other)?
            } else {
                Vec::new()
            },
        })
    }

    /// The same confinement with another root.
    pub(super) fn within(&self, root: &Path) -> io::Result<Prepared> {
        Ok(Prepared {
            root: Some(CString::new(root.as_os_str().as_bytes())?),
            user: self.user,
            limits: self.limits.clone(),
            cgroups: self.cgroups.clone(),
            domain: match self.domain {
                Some(_) => landlock::rules(root)?,
                None => None,
            },
            filters: self.filters.clone(),
        })
    }

    /// The user and group id of tools; `None` if tools run as the dispatcher's user.
    pub(super) fn user(&self) -> Option<(Uid, Gid)> {
        self.user
    }

    /// How many bytes of a call's output are sent; `None` for all of them.
    pub(super) fn output_limit(&self, call: &Call) -> Option<u64> {
        let limits = self.limits.with(&call.limits);
        limits.output_mib.map(|limit| limit.saturating_mul(MIB))
    }

    /// Makes the child of `command` enter the confinement just before it executes the program. Returns the run's
    /// control group.
    pub(super) fn confine(
        self: &Arc<Self>,
        command: &mut Command,
        call: &Call,
    ) -> io::Result<Option<Group>> {
        let limits = self.limits.with(&call.limits);
        let group = self.cgroups.as_ref().map(|groups| groups.group(&limits));
        let group = group.transpose()?;
        let entry = Entry {
            prepared: Arc::clone(self),
            group: group.as_ref().map(|group| group.processes().as_raw_fd()),
            limits: limits
                .resources(group.is_some())
                .map(|(resource, limit)| (resource, lowered(resource, limit)))
                .collect(),
            directory: call.cwd.as_deref().map(CString::new).transpose()?,
        };
        // SAFETY: between fork and exec only async-signal-safe operations are allowed. `enter` only makes system calls
        // on memory that was prepared before the fork; it neither allocates nor locks.
        unsafe { command.pre_exec(move || entry.enter()) };
        Ok(group)
    }
}

/// What one child applies to itself.
struct Entry {
    prepared: Arc<Prepared>,
    /// The run's `cgroup.procs`, through which a process enters the group. It is open in the parent until the child has
    /// started.
    group: Option<RawFd>,
    limits: Vec<(Resource, Rlimit)>,
    directory: Option<CString>,
}

impl Entry {
    /// Runs in the child. Each error value is a plain number, so that making it allocates nothing.
    fn enter(&self) -> io::Result<()> {
        let prepared = &*self.prepared;
        if let Some(group) = self.group {
            // SAFETY: the parent has the descriptor open, so it is open in its child, which owns nothing but a copy of
            // it.
            let group = unsafe { BorrowedFd::borrow_raw(group) };
            rustix::io::write(group, b"0")?;
        }
        be_killed_first();
        let tool = rustix::process::setsid()?;
        // The setting survives exec. Without it a descendant whose parent ends would become a child of the first
        // process, and couldn't be told from the descendants of other tools.
        rustix::process::set_child_subreaper(Some(tool))?;
        if let Some(root) = &prepared.root {
            rustix::process::chroot(root.as_c_str())?;
        }
        rustix::process::chdir(c"/")?;
        for (resource, limit) in &self.limits {
            rustix::process::setrlimit(*resource, *limit)?;
        }
        if let Some((user, group)) = prepared.user {
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(group, group, group)?;
            rustix::thread::set_thread_res_uid(user, user, user)?;
        }
        if let Some(directory) = &self.directory {
            rustix::process::chdir(directory.as_c_str()).map_err(in_directory)?;
        }
        rustix::thread::set_no_new_privs(true)?;
        if let Some(rules) = &prepared.domain {
            landlock::enter(rules.as_fd())?;
        }
        for filter in &prepared.filters {
            seccompiler::apply_filter(filter).map_err(|_| rustix::io::Errno::PERM)?;
        }
        Ok(())
    }
}

/// Sets [`OOM_SCORE`] in place of the score that this process inherited from the dispatcher, which the OOM killer
/// spares.
fn be_killed_first() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let score = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty());
    // Without /proc this fails, and the tool runs with the inherited score.
    let _ = score.and_then(|score| rustix::io::write(score, OOM_SCORE));
}

/// A tool could not be started.
#[derive(Debug)]
pub(super) enum StartError {
    /// The tool can't enter the directory that the host chose.
    Directory(io::Error),
    /// Any other error.
    Other(io::Error),
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::Other(error)
    }
}

/// Added to the number of an error that concerns the chosen directory. A child can report only a number to its parent,
/// and the kernel's error numbers are all below this one.
const IN_DIRECTORY: i32 = 1 << 16;

fn in_directory(error: rustix::io::Errno) -> io::Error {
    io::Error::from_raw_os_error(IN_DIRECTORY + error.raw_os_error())
}

impl StartError {
    /// Reads the error that the child reported.
    pub(super) fn of_child(error: io::Error) -> StartError {
        match error.raw_os_error() {
            Some(number) if number >= IN_DIRECTORY => {
                StartError::Directory(io::Error::from_raw_os_error(number - IN_DIRECTORY))
            }
            _ => StartError::Other(error),
        }
    }
}

/// Soft and hard limit for `limit`, but not above the present hard limit, which only root may raise.
fn lowered(resource: Resource, limit: u64) -> Rlimit {
    let limit = match rustix::process::getrlimit(resource).maximum {
        Some(maximum) => limit.min(maximum),
        None => limit,
    };
    Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    }
}
