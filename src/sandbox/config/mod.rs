//! The configuration of a sandbox, in code or as a TOML file: [`SandboxConfig`].

/// Makes a setter, by value, of each named field.
macro_rules! setters {
    ($($field:ident: $type:ty => $value:expr;)+) => {
        $(
            #[doc = concat!("Sets `", stringify!($field), "`, see the field of that name.")]
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

/// How a sandbox is made. Only its origin has no default: the golden snapshot to which it is reset, or, asked for by name,
/// a kernel and disks without verification.
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
/// In a TOML file the fields have the same names; the origin is the table `[golden]` or the table `[scaffold]`, exactly one
/// of them. Paths are taken as they stand, and further fields are refused.
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
    /// The VMM's executable; a bare name is looked up in `PATH`. Default: `cloud-hypervisor`.
    pub vmm: PathBuf,
    /// Extra environment for the VMM's process. Its values are never logged. Default: none.
    pub vmm_env: VmmEnv,
    /// Which layers of a boundary each VMM gets: `"best_effort"`, `"off"`, or a table with `require` or `without`, lists of
    /// layers. Default: `"best_effort"`, every layer that this host has.
    pub confinement: Confinement,
    /// Files and folders that the VMM may run programs and libraries from, beside its executable and the system's
    /// libraries. Default: none.
    pub vmm_programs: Vec<PathBuf>,
    /// Where the VMM's control group is made, and its limits. Default: no limits, and no group unless one was delegated to
    /// this process.
    pub cgroup: CgroupConfig,
    /// Keeps the names of the VMM's sockets, for debugging. Default: false.
    pub keep_socket_names: bool,
    /// Where the private directory of each VMM is made. Default: in the user's runtime directory.
    pub run_root: Option<PathBuf>,
    /// How many tools the sandbox runs before it has to be reset: `one` or `many`. Default: `one`.
    pub tools_per_reset: ToolsPerReset,
    /// How long each step may take. Its defaults are [`TimeLimits`]'.
    pub limits: TimeLimits,
}

impl SandboxConfig {
    /// A sandbox of this origin, with every other setting as it is by default.
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

    /// A sandbox that is reset to the golden snapshot in `directory`. With other settings of the golden snapshot's than the
    /// defaults, give [`new`](Self::new) a [`GoldenOrigin`].
    pub fn golden(directory: impl Into<PathBuf>) -> Self {
        Self::new(GoldenOrigin::new(directory))
    }

    /// A sandbox in scaffold mode: it boots cold, and **nothing is verified**. With other settings of the VM's than the
    /// defaults, give [`new`](Self::new) a [`ScaffoldOrigin`].
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

    /// The VMM's process.
    pub fn vmm_config(&self) -> VmmConfig {
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

    /// The golden snapshot; `None` in scaffold mode.
    pub(super) fn golden_origin(&self) -> Option<&GoldenOrigin> {
        match &self.origin {
            SandboxOrigin::Golden(golden) => Some(golden),
            SandboxOrigin::Scaffold(_) => None,
        }
    }

    /// What scaffold mode boots; `None` with a golden snapshot.
    pub(super) fn scaffold_origin(&self) -> Option<&ScaffoldOrigin> {
        match &self.origin {
            SandboxOrigin::Golden(_) => None,
            SandboxOrigin::Scaffold(scaffold) => Some(scaffold),
        }
    }

    /// The strategy on VMMs from `source`.
    pub(super) fn strategy_on(&self, source: &VmmSource) -> Strategy {
        match &self.origin {
            SandboxOrigin::Golden(golden) => golden.strategy_on(source),
            SandboxOrigin::Scaffold(_) => Strategy::InPlace,
        }
    }
}
