//! [`VmmConfig`]: the configuration of a VMM process.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::confinement::{CgroupConfig, Confinement};
use super::{Error, run_root};
use crate::limits::TimeLimits;

/// The configuration of a VMM process.
///
/// Its `Debug` output shows the names of the variables in [`env`](Self::env) but never their values, which may be
/// secrets.
#[derive(Clone)]
pub struct VmmConfig {
    /// The VMM's executable. A bare name is looked up in `PATH`; a name with a `/` is a path.
    /// Default: `cloud-hypervisor`.
    pub binary: PathBuf,
    /// Additional environment variables for the VMM. From this process's own environment the VMM gets only `PATH`,
    /// `LANG`, `LC_ALL` and `TZ`, unless the [environment](super::Layer::Environment) layer is left out.
    ///
    /// `MALLOC_ARENA_MAX=1` is set too, unless the variable is given here. Releases that are built against glibc have a
    /// seccomp filter that kills the VMM, or makes it hang for ever, when a thread's own malloc arena is trimmed. With
    /// a single arena that can't happen.
    pub env: Vec<(OsString, OsString)>,
    /// The directory below which each VMM gets its private run directory. If it is missing, it is created with mode
    /// 0700; its parent must exist. It must belong to this user, and no other user may be able to write to it.
    ///
    /// Default: `$XDG_RUNTIME_DIR/chv-sandbox`, else `chv-sandbox-<uid>` in the directory for temporary files. It must
    /// be short, since a socket's path must have less than 108 bytes.
    pub run_root: PathBuf,
    /// The layers of confinement that the VMM gets. Default: every layer that this host has.
    pub confinement: Confinement,
    /// Files and folders that the VMM may read and execute in addition to its executable and the system's libraries,
    /// for instance the real VMM if `binary` is a wrapper script. (A script may also run the system's programs.)
    /// Landlock refuses all other files. The files and folders that `LD_PRELOAD` and `LD_LIBRARY_PATH` in
    /// [`env`](Self::env) name are added by themselves.
    pub programs: Vec<PathBuf>,
    /// The parent of the VMM's control group, and the group's limits.
    pub cgroup: CgroupConfig,
    /// Whether to keep the paths of the api-socket (`api.sock` in the run directory) and of the vsock socket, so that
    /// other programs of this user can connect to them. Use it for debugging only, since a reset does not notice what
    /// another program does to the VMM through them. Default: false.
    pub keep_socket_names: bool,
    /// The verbosity of the VMM's log: how often `-v` is passed, from 0 (warnings) to 3. Default: 0.
    pub verbosity: u8,
    /// How long each step of the process may take: `vmm_start`, `vmm_shutdown`, `vmm_terminate` and `vmm_kill`.
    pub limits: TimeLimits,
}

impl VmmConfig {
    /// Ensures that the run root exists and that only this user can change it. Returns its absolute path.
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
