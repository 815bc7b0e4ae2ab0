//! What a tool may do: its root, its user, its limits, its system calls.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustix::process::{Gid, Resource, Rlimit, Uid};
use seccompiler::BpfProgram;

use super::seccomp;

const MIB: u64 = 1024 * 1024;

/// What a tool may do. The dispatcher applies it between fork and exec, in this order: session, root,
/// limits, user, `no_new_privs`, seccomp filter.
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
    /// Limits of each process of a tool.
    pub limits: Limits,
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
            seccomp: true,
        }
    }

    /// For a dispatcher inside an ordinary process, the stand-in for a guest: same root, same user.
    ///
    /// The number of processes is not limited, since the kernel counts all of the user's, not the tool's.
    pub fn in_process() -> Confinement {
        Confinement {
            root: None,
            user: None,
            limits: Limits {
                processes: None,
                ..Limits::default()
            },
            seccomp: true,
        }
    }
}

/// Limits of each process of a tool (`setrlimit`); `None` leaves what the dispatcher has. Core files are
/// never written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space in MiB.
    pub memory_mib: Option<u64>,
    /// Processes and threads of the tools' user, all tools together.
    pub processes: Option<u64>,
    /// Open descriptors.
    pub open_files: Option<u64>,
    /// Size of a file that is written, in MiB.
    pub file_size_mib: Option<u64>,
}

impl Default for Limits {
    /// 512 MiB, 64 processes, 256 open files, files up to 256 MiB.
    fn default() -> Limits {
        Limits {
            memory_mib: Some(512),
            processes: Some(64),
            open_files: Some(256),
            file_size_mib: Some(256),
        }
    }
}

impl Limits {
    fn resources(&self) -> impl Iterator<Item = (Resource, u64)> {
        let mib = |size: u64| size.saturating_mul(MIB);
        [
            (Resource::As, self.memory_mib.map(mib)),
            (Resource::Nproc, self.processes),
            (Resource::Nofile, self.open_files),
            (Resource::Fsize, self.file_size_mib.map(mib)),
            (Resource::Core, Some(0)),
        ]
        .into_iter()
        .filter_map(|(resource, limit)| Some((resource, limit?)))
    }
}

/// A [`Confinement`] with everything computed that can't be computed between fork and exec.
#[derive(Debug)]
pub(super) struct Prepared {
    root: Option<CString>,
    user: Option<(Uid, Gid)>,
    limits: Vec<(Resource, Rlimit)>,
    filters: Vec<BpfProgram>,
}

impl Prepared {
    pub(super) fn new(confinement: &Confinement) -> io::Result<Prepared> {
        let root = match &confinement.root {
            Some(root) => Some(CString::new(root.as_os_str().as_bytes())?),
            None => None,
        };
        Ok(Prepared {
            root,
            user: confinement
                .user
                .map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group))),
            limits: confinement
                .limits
                .resources()
                .map(|(resource, limit)| (resource, lowered(resource, limit)))
                .collect(),
            filters: if confinement.seccomp {
                seccomp::filters().map_err(io::Error::other)?
            } else {
                Vec::new()
            },
        })
    }

    /// Makes `command` enter the confinement in its child, just before the program starts.
    pub(super) fn confine(self: &Arc<Self>, command: &mut Command) {
        let prepared = Arc::clone(self);
        // SAFETY: between fork and exec only async-signal-safe things are allowed. `enter` makes nothing but
        // system calls on memory that was prepared before the fork; it neither allocates nor locks.
        unsafe { command.pre_exec(move || prepared.enter()) };
    }

    /// Runs in the child. Each error value is a plain errno, so that making it allocates nothing.
    fn enter(&self) -> io::Result<()> {
        let tool = rustix::process::setsid()?;
        // Kept over exec. Without it a descendant whose parent ends would be the first process's child, where nothing
        // tells it from those of other tools.
        rustix::process::set_child_subreaper(Some(tool))?;
        if let Some(root) = &self.root {
            rustix::process::chroot(root.as_c_str())?;
        }
        rustix::process::chdir(c"/")?;
        for (resource, limit) in &self.limits {
            rustix::process::setrlimit(*resource, *limit)?;
        }
        if let Some((user, group)) = self.user {
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(group, group, group)?;
            rustix::thread::set_thread_res_uid(user, user, user)?;
        }
        rustix::thread::set_no_new_privs(true)?;
        for filter in &self.filters {
            seccompiler::apply_filter(filter).map_err(|_| rustix::io::Errno::PERM)?;
        }
        Ok(())
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
