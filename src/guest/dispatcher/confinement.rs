//! What a tool may do: its root, its user, its limits, its system calls.

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
use super::toolbox::Call;
use super::{domain, seccomp};
use crate::causes::Causes;

pub(super) const MIB: u64 = 1024 * 1024;

/// Where a guest has the cgroup v2 file system.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Where a guest mounts a throwaway layer: in the initramfs, which is memory.
const THROWAWAY_LAYER: &str = "/throwaway";

/// Makes this process, and what it starts from now on, the last that the kernel's OOM killer takes. A tool gives that up.
///
/// # Errors
///
/// What the kernel refused it with; only root may.
pub fn be_killed_last() -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "-1000")
}

/// How much sooner than others the kernel's OOM killer takes a tool, from -1000 to 1000.
const OOM_SCORE: &[u8] = b"500";

/// What a tool may do. The dispatcher applies it between fork and exec, in this order: control group, session, root,
/// limits, user, directory, `no_new_privs`, Landlock domain, seccomp filter.
///
/// A tool also adopts what its children leave behind (`PR_SET_CHILD_SUBREAPER`), so that whatever it started can be found
/// and killed at its deadline. What it leaves when it ends in time runs on until the reset.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// The directory that is `/` for tools; `None` leaves the dispatcher's own. After each tool its file
    /// system is synced, so that what the tool wrote is on the disk before its result is sent.
    pub root: Option<PathBuf>,
    /// User and group id of tools, without supplementary groups; `None` leaves the dispatcher's own.
    pub user: Option<(u32, u32)>,
    /// Limits of a tool, unless the tools file has others for it. One that is `None` here is left out for every tool.
    pub limits: Limits,
    /// The directory of the cgroup v2 file system below which each run has a group of its own, which has the limits on memory
    /// and processes. `None`, or where that can't be, which is logged: they are those of `setrlimit`.
    pub cgroup: Option<PathBuf>,
    /// Whether a run can't trace, read or, from Linux 6.12 on, signal what is outside of it, other runs of the same user
    /// included (Landlock, from Linux 5.19 on; a kernel without it leaves that to the user ids).
    pub domain: bool,
    /// A directory that is made for each warm run, and on which its throwaway layer is mounted. `None`, as for a stand-in that may
    /// not mount: a warm run writes where every run does.
    pub throwaway: Option<PathBuf>,
    /// Whether the system calls that no tool needs are refused with EPERM. A tool that may make them can have descendants
    /// that no deadline finds.
    pub seccomp: bool,
}

impl Confinement {
    /// For the dispatcher inside a guest, which is root there: tools run as user 1000 below `root`.
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

    /// For a dispatcher inside an ordinary process, the stand-in for a guest: same root, same user.
    ///
    /// The number of processes is not limited, since the kernel counts all of the user's, not the tool's.
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

/// Limits of a tool; `None` leaves what the dispatcher has. Core files are never written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory in MiB: of all processes of a run together, where it has a control group, else what each process writes to
    /// beside files (`RLIMIT_DATA`). What is reserved and not used doesn't count.
    pub memory_mib: Option<u64>,
    /// Processes and threads: of a run, where it has a control group, else of the tools' user, all tools together.
    pub processes: Option<u64>,
    /// Open descriptors of each process.
    pub open_files: Option<u64>,
    /// Size of a file that is written, in MiB.
    pub file_size_mib: Option<u64>,
    /// What is sent of the output of a run with streams, both streams together, in MiB. The rest is read, counted and dropped.
    pub output_mib: Option<u64>,
}

impl Default for Limits {
    /// 512 MiB, 64 processes, 256 open files, files up to 256 MiB, output without a limit.
    fn default() -> Limits {
        Limits {
            memory_mib: Some(512),
            processes: Some(64),
            open_files: Some(256),
            file_size_mib: Some(256),
            output_mib: None,
        }
    }
}

impl Limits {
    /// No limit.
    pub(super) const NONE: Limits = Limits {
        memory_mib: None,
        processes: None,
        open_files: None,
        file_size_mib: None,
        output_mib: None,
    };

    /// These, where one of the tool's `own` doesn't take its place.
    fn with(&self, own: &Limits) -> Limits {
        let either = |here: Option<u64>, own: Option<u64>| here.map(|here| own.unwrap_or(here));
        Limits {
            memory_mib: either(self.memory_mib, own.memory_mib),
            processes: either(self.processes, own.processes),
            open_files: either(self.open_files, own.open_files),
            file_size_mib: either(self.file_size_mib, own.file_size_mib),
            output_mib: own.output_mib.or(self.output_mib),
        }
    }

    /// Those of `setrlimit`; a control group takes the place of two.
    fn resources(&self, has_cgroup: bool) -> impl Iterator<Item = (Resource, u64)> {
        let mib = |size: u64| size.saturating_mul(MIB);
        let without_group = |limit: Option<u64>| limit.filter(|_| !has_cgroup);
        [
            (Resource::Data, without_group(self.memory_mib).map(mib)),
            (Resource::Nproc, without_group(self.processes)),
            (Resource::Nofile, self.open_files),
            (Resource::Fsize, self.file_size_mib.map(mib)),
            (Resource::Core, Some(0)),
        ]
        .into_iter()
        .filter_map(|(resource, limit)| Some((resource, limit?)))
    }
}

/// A [`Confinement`] with everything computed that holds for every run.
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
                tracing::warn!(error = %Causes(error), "no control groups: limits hold for each process of a tool");
            });
            made.ok()
        });
        let domain = match confinement.domain {
            true => domain::rules(root.unwrap_or(Path::new("/")))?,
            false => None,
        };
        if confinement.domain && domain.is_none() {
            tracing::warn!("the kernel has no Landlock: tools can read each other's memory");
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

    /// The same with another root.
    pub(super) fn within(&self, root: &Path) -> io::Result<Prepared> {
        Ok(Prepared {
            root: Some(CString::new(root.as_os_str().as_bytes())?),
            user: self.user,
            limits: self.limits.clone(),
            cgroups: self.cgroups.clone(),
            domain: match self.domain {
                Some(_) => domain::rules(root)?,
                None => None,
            },
            filters: self.filters.clone(),
        })
    }

    /// The tools' user and group; `None` where they are the dispatcher's own.
    pub(super) fn user(&self) -> Option<(Uid, Gid)> {
        self.user
    }

    /// How many bytes of a call's output are sent.
    pub(super) fn output_limit(&self, call: &Call) -> Option<u64> {
        let limits = self.limits.with(&call.limits);
        limits.output_mib.map(|limit| limit.saturating_mul(MIB))
    }

    /// Makes `command` enter the confinement in its child, just before the program starts. Returns the run's control group.
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
        // SAFETY: between fork and exec only async-signal-safe things are allowed. `enter` makes nothing but
        // system calls on memory that was prepared before the fork; it neither allocates nor locks.
        unsafe { command.pre_exec(move || entry.enter()) };
        Ok(group)
    }
}

/// What one child does to itself.
struct Entry {
    prepared: Arc<Prepared>,
    /// The file that takes processes into the run's group. It is open in the parent until the child has started.
    group: Option<RawFd>,
    limits: Vec<(Resource, Rlimit)>,
    directory: Option<CString>,
}

impl Entry {
    /// Runs in the child. Each error value is a plain number, so that making it allocates nothing.
    fn enter(&self) -> io::Result<()> {
        let prepared = &*self.prepared;
        if let Some(group) = self.group {
            // SAFETY: the parent has the descriptor open, so it is open in its child, which owns nothing but a copy of it.
            let group = unsafe { BorrowedFd::borrow_raw(group) };
            rustix::io::write(group, b"0")?;
        }
        be_killed_first();
        let tool = rustix::process::setsid()?;
        // Kept over exec. Without it a descendant whose parent ends would be the first process's child, where nothing
        // tells it from those of other tools.
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
            domain::enter(rules.as_fd())?;
        }
        for filter in &prepared.filters {
            seccompiler::apply_filter(filter).map_err(|_| rustix::io::Errno::PERM)?;
        }
        Ok(())
    }
}

/// Takes the place of what this process has from the dispatcher, which is to be killed last.
fn be_killed_first() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let score = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty());
    // A tool runs without, where there is no /proc.
    let _ = score.and_then(|score| rustix::io::write(score, OOM_SCORE));
}

/// A tool could not be started.
#[derive(Debug)]
pub(super) enum StartError {
    /// It can't enter the directory that the host chose.
    Directory(io::Error),
    /// Anything else.
    Other(io::Error),
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::Other(error)
    }
}

/// What is added to the number of an error with the chosen directory. All that a child can tell is a number, and those of the
/// kernel end below.
const IN_DIRECTORY: i32 = 1 << 16;

fn in_directory(error: rustix::io::Errno) -> io::Error {
    io::Error::from_raw_os_error(IN_DIRECTORY + error.raw_os_error())
}

impl StartError {
    /// What the child told.
    pub(super) fn of_child(error: io::Error) -> StartError {
        match error.raw_os_error() {
            Some(number) if number >= IN_DIRECTORY => {
                StartError::Directory(io::Error::from_raw_os_error(number - IN_DIRECTORY))
            }
            _ => StartError::Other(error),
        }
    }
}

/// Both limits, never above the hard limit that there is already: only root could raise that.
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
