//! [`SandboxConfig`]: the configuration of a sandbox, built in code or read from a TOML file.

/// Defines a setter for each named field. A setter takes and returns `self` by value.
macro_rules! setters {
    ($($field:ident: $type:ty => $value:expr;)+) => {
        $(
            #[doc = concat!("Sets the field `", stringify!($field), "`.")]
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $value;
                self
            }
        )+
    };
}

mod check;
mod env;
mod error;
mod file;
mod origin;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::Deserialize;

pub use env::VmmEnv;
pub use error::ConfigError;
pub use origin::{GoldenOrigin, SandboxOrigin, ScaffoldOrigin};

use super::{Strategy, ToolsPerReset};
use crate::limits::TimeLimits;
use crate::machine::VmmSource;
use crate::vmm::{CgroupConfig, Confinement, VmmConfig};

/// The configuration of a sandbox. Every field has a default except [`origin`](Self::origin): the golden snapshot that
/// the sandbox boots from and is reset to, or, in scaffold mode, a kernel and disks, which are never verified.
///
/// In code:
///
/// ```
/// use chv_sandbox::limits::TimeLimits;
/// use chv_sandbox::sandbox::{GoldenOrigin, SandboxConfig};
///
/// let golden = GoldenOrigin::new("/var/lib/agent/golden").spares(2).evidence_dir("/var/lib/agent/evidence");
/// let config = SandboxConfig::new(golden)
///     .vmm("/usr/bin/cloud-hypervisor")
///     .limits(TimeLimits::default().scaled(2));
/// config.check()?;
/// # Ok::<_, chv_sandbox::sandbox::ConfigError>(())
/// ```
///
/// In a TOML file the fields have the same names. In place of `origin` the file has either the table `[golden]`
/// ([`GoldenOrigin`]) or the table `[scaffold]` ([`ScaffoldOrigin`]), exactly one of them. A relative path is relative
/// to the process's working directory, and `~` and variables are not expanded. An unknown field is refused.
///
/// ```
/// # use std::time::Duration;
/// let config = chv_sandbox::sandbox::SandboxConfig::from_toml(r#"
///     vmm = "/usr/bin/cloud-hypervisor"
///
///     [golden]
///     directory = "/var/lib/agent/golden"
///     spares = 2
///
///     [limits]
///     query = "250ms"
/// "#)?;
/// assert_eq!(config.limits.query, Duration::from_millis(250));
/// # Ok::<_, chv_sandbox::sandbox::ConfigError>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "file::ConfigFile")]
#[non_exhaustive]
pub struct SandboxConfig {
    /// What the sandbox boots from, and returns to at every reset.
    pub origin: SandboxOrigin,
    /// The VMM's executable. A bare name is looked up in `PATH`. Default: `cloud-hypervisor`.
    pub vmm: PathBuf,
    /// Extra environment variables for the VMM's process. Their values are never logged. Default: none.
    pub vmm_env: VmmEnv,
    /// Which layers of confinement each VMM gets: `"best_effort"`, `"off"`, or a table with `require` or `without`,
    /// lists of [layers](crate::vmm::Layer). Default: `"best_effort"`, every layer that this host has.
    pub confinement: Confinement,
    /// Files and directories from which the VMM may read and run programs and libraries, beside its executable and the
    /// system's libraries. Default: none.
    pub vmm_programs: Vec<PathBuf>,
    /// The limits of each VMM's control group, and the parent in which the group is created. Default: no limits, and no
    /// group unless one was delegated to this process.
    pub cgroup: CgroupConfig,
    /// Keeps the names of the VMM's sockets in the file system, so that other programs of this user can connect to
    /// them. For debugging only: a reset doesn't take into account what such a program does to the VMM. Default: false.
    pub keep_socket_names: bool,
    /// The directory in which each VMM's private run directory is created. Default: `chv-sandbox` in
    /// `$XDG_RUNTIME_DIR`, or `chv-sandbox-<uid>` in the directory for temporary files.
    pub run_root: Option<PathBuf>,
    /// How many tools the sandbox runs before it has to be reset: `one` or `many`. Default: `one`.
    pub tools_per_reset: ToolsPerReset,
    /// How long each step may take. Default: [`TimeLimits::default`].
    pub limits: TimeLimits,
}

impl SandboxConfig {
    /// A configuration with this origin and the defaults of all other fields.
    pub fn new(origin: impl Into<SandboxOrigin>) -> Self {
        SandboxConfig {
            origin: origin.into(),
            vmm: VmmConfig::default().binary,
            vmm_env: VmmEnv::default(),
            confinement: Confinement::default(),
            vmm_programs: Vec::new(),
            cgroup: CgroupConfig::default(),
            keep_socket_names: false,
            run_root: None,
            tools_per_reset: ToolsPerReset::default(),
            limits: TimeLimits::default(),
        }
    }

    /// A sandbox that is reset to the golden snapshot in `directory`. To change a setting of the golden snapshot, pass
    /// a [`GoldenOrigin`] to [`new`](Self::new).
    pub fn golden(directory: impl Into<PathBuf>) -> Self {
        Self::new(GoldenOrigin::new(directory))
    }

    /// A sandbox in scaffold mode: a boot and a reset boot `kernel` with `root_disk`, and **nothing is verified**. To
    /// change a setting of the VM, pass a [`ScaffoldOrigin`] to [`new`](Self::new).
    pub fn scaffold(kernel: impl Into<PathBuf>, root_disk: impl Into<PathBuf>) -> Self {
        Self::new(ScaffoldOrigin::new(kernel, root_disk))
    }

    setters! {
        origin: impl Into<SandboxOrigin> => origin.into();
        vmm: impl Into<PathBuf> => vmm.into();
        vmm_env: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)> => vmm_env.into_iter().collect();
        confinement: Confinement => confinement;
        vmm_programs: impl IntoIterator<Item = impl Into<PathBuf>> => vmm_programs.into_iter().map(Into::into).collect();
        cgroup: CgroupConfig => cgroup;
        keep_socket_names: bool => keep_socket_names;
        run_root: impl Into<PathBuf> => Some(run_root.into());
        tools_per_reset: ToolsPerReset => tools_per_reset;
        limits: TimeLimits => limits;
    }

    /// The settings of the VMM's process that this configuration has.
    pub(crate) fn vmm_config(&self) -> VmmConfig {
        let env = self.vmm_env.0.iter();
        let mut config = VmmConfig {
            binary: self.vmm.clone(),
            env: env
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            confinement: self.confinement.clone(),
            programs: self.vmm_programs.clone(),
            cgroup: self.cgroup.clone(),
            keep_socket_names: self.keep_socket_names,
            limits: self.limits,
            ..VmmConfig::default()
        };
        if let Some(run_root) = &self.run_root {
            config.run_root = run_root.clone();
        }
        config
    }

    /// The settings of the golden snapshot; `None` in scaffold mode.
    pub(super) fn golden_origin(&self) -> Option<&GoldenOrigin> {
        match &self.origin {
            SandboxOrigin::Golden(golden) => Some(golden),
            SandboxOrigin::Scaffold(_) => None,
        }
    }

    /// The settings of scaffold mode; `None` with a golden snapshot.
    pub(super) fn scaffold_origin(&self) -> Option<&ScaffoldOrigin> {
        match &self.origin {
            SandboxOrigin::Golden(_) => None,
            SandboxOrigin::Scaffold(scaffold) => Some(scaffold),
        }
    }

    /// The strategy of resets on VMMs from `source`.
    pub(super) fn strategy_on(&self, source: &VmmSource) -> Strategy {
        match &self.origin {
            SandboxOrigin::Golden(golden) => golden.strategy_on(source),
            SandboxOrigin::Scaffold(_) => Strategy::InPlace,
        }
    }
}
