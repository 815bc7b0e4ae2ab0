//! What can be chosen about a VMM process.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::confinement::{CgroupConfig, Confinement};
use super::{Error, run_root};
use crate::limits::TimeLimits;

/// How to start a VMM.
///
/// Its `Debug` output shows the names of the extra environment and never the values: they may be secrets.
#[derive(Clone)]
pub struct VmmConfig {
    /// The VMM's executable: a bare name is looked up in `PATH`, anything with a `/` is a path.
    /// Default: `cloud-hypervisor`.
    pub binary: PathBuf,
    /// Environment variables for the VMM. Of this process's it gets `PATH`, `LANG`, `LC_ALL` and `TZ`, and nothing else
    /// unless the [environment](super::Layer::Environment) layer is left out.
    ///
    /// `MALLOC_ARENA_MAX=1` is always set, unless it is given here: releases built against glibc have a seccomp filter
    /// that kills the VMM, or hangs it for ever, when a thread's own malloc arena is trimmed. With one arena there
    /// is none to trim.
    pub env: Vec<(OsString, OsString)>,
    /// The directory below which each VMM gets its private run directory. Created with mode 0700 if
    /// missing, in a directory that exists. It must belong to this user, and no other user may be able to write to it.
    ///
    /// Default: `$XDG_RUNTIME_DIR/chv-sandbox`, else `chv-sandbox-<uid>` in the directory for temporary files. It must
    /// be short: a socket's path has less than 108 bytes.
    pub run_root: PathBuf,
    /// Which layers of a boundary the VMM gets. Every one that this host has unless set.
    pub confinement: Confinement,
    /// Files and folders that the VMM may read, and run programs and libraries from, beside its executable and the system's
    /// libraries: the VMM that a wrapper script runs, say (the system's programs are there for a script). Landlock refuses it the rest. What `LD_PRELOAD` and `LD_LIBRARY_PATH` in
    /// [`env`](Self::env) name is among them.
    pub programs: Vec<PathBuf>,
    /// Where the VMM's control group is made, and its limits.
    pub cgroup: CgroupConfig,
    /// Keeps the names of the api-socket (`api.sock` in the run directory) and of the vsock socket, so that other programs
    /// of this user can connect to them. For debugging: what they ask of the VMM, no reset takes into account. False unless
    /// set.
    pub keep_socket_names: bool,
    /// How much the VMM writes to its log: how often `-v` is passed, 0 (warnings; the default) to 3.
    pub verbosity: u8,
    /// How long each step of the process may take: `vmm_start`, `vmm_shutdown`, `vmm_terminate` and `vmm_kill`.
    pub limits: TimeLimits,
}

impl VmmConfig {
    /// Makes sure that the run root is there and is this user's alone. Its absolute path.
    pub(crate) fn prepare_run_root(&self) -> Result<PathBuf, Error> {
        run_root::prepare(&self.run_root)
    }
}

impl Default for VmmConfig {
    fn default() -> Self {
        VmmConfig {
            binary: PathBuf::from("cloud-hypervisor"),
            env: Vec::new(),
            run_root: run_root::default_path(),
            confinement: Confinement::default(),
            programs: Vec::new(),
            cgroup: CgroupConfig::default(),
            keep_socket_names: false,
            verbosity: 0,
            limits: TimeLimits::default(),
        }
    }
}

impl fmt::Debug for VmmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("VmmConfig")
            .field("binary", &self.binary)
            .field("env", &format_args!("{names:?} (values not shown)"))
            .field("run_root", &self.run_root)
            .field("confinement", &self.confinement)
            .field("programs", &self.programs)
            .field("cgroup", &self.cgroup)
            .field("keep_socket_names", &self.keep_socket_names)
            .field("verbosity", &self.verbosity)
            .field("limits", &self.limits)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::VmmConfig;

    #[test]
    fn debug_shows_no_value_of_the_environment() {
        let config = VmmConfig {
            env: vec![("TOKEN".into(), "hunter2".into())],
            ..VmmConfig::default()
        };
        let debug = format!("{config:?}");
        assert!(debug.contains("TOKEN"), "{debug}");
        assert!(!debug.contains("hunter2"), "{debug}");
    }
}
