//! Reads a [`SandboxConfig`] from a TOML file.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, GoldenOrigin, SandboxConfig, SandboxOrigin, ScaffoldOrigin, VmmEnv};
use crate::files::read_file_or_pipe;
use crate::limits::TimeLimits;
use crate::sandbox::ToolsPerReset;
use crate::vmm::{CgroupConfig, Confinement};

/// The longest configuration file, in bytes. A usual one has a few hundred.
const MAX_BYTES: u64 = 64 * 1024;

/// The fields of a configuration file: those of [`SandboxConfig`], with `golden` or `scaffold` in place of `origin`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    golden: Option<GoldenOrigin>,
    scaffold: Option<ScaffoldOrigin>,
    vmm: Option<PathBuf>,
    #[serde(default)]
    vmm_env: VmmEnv,
    #[serde(default)]
    confinement: Confinement,
    #[serde(default)]
    vmm_programs: Vec<PathBuf>,
    #[serde(default)]
    cgroup: CgroupConfig,
    #[serde(default)]
    keep_socket_names: bool,
    run_root: Option<PathBuf>,
    #[serde(default)]
    tools_per_reset: ToolsPerReset,
    #[serde(default)]
    limits: TimeLimits,
}

impl TryFrom<ConfigFile> for SandboxConfig {
    type Error = ConfigError;

    fn try_from(file: ConfigFile) -> Result<Self, ConfigError> {
        let origin: SandboxOrigin = match (file.golden, file.scaffold) {
            (Some(golden), None) => golden.into(),
            (None, Some(scaffold)) => scaffold.into(),
            (Some(_), Some(_)) => {
                let reason = "and scaffold exclude each other: remove one of them";
                return Err(ConfigError::invalid("golden", reason));
            }
            (None, None) => {
                let reason = "is missing: give a golden snapshot's directory, or a table [scaffold] to run without \
                              verification";
                return Err(ConfigError::invalid("golden", reason));
            }
        };
        let defaults = SandboxConfig::new(origin);
        let config = SandboxConfig {
            vmm: file.vmm.unwrap_or(defaults.vmm),
            vmm_env: file.vmm_env,
            confinement: file.confinement,
            vmm_programs: file.vmm_programs,
            cgroup: file.cgroup,
            keep_socket_names: file.keep_socket_names,
            run_root: file.run_root,
            tools_per_reset: file.tools_per_reset,
            limits: file.limits,
            origin: defaults.origin,
        };
        config.check()?;
        Ok(config)
    }
}

impl SandboxConfig {
    /// Reads a configuration from the text of a TOML file, and checks it as [`check`](Self::check) does.
    ///
    /// # Errors
    ///
    /// - [`ConfigError::Malformed`]: the text isn't TOML, or has an unknown field or a value of the wrong type.
    /// - [`ConfigError::Invalid`]: a value is not allowed, is missing, or contradicts another one.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let file: ConfigFile =
            toml::from_str(text).map_err(|error| ConfigError::malformed(text, &error))?;
        file.try_into()
    }

    /// Reads a configuration from a file of at most 64 KiB, and checks it. The path may lead to a pipe, whose writer
    /// must close it within 5 seconds.
    ///
    /// # Errors
    ///
    /// - [`ConfigError::Read`]: the file can't be read, is larger than 64 KiB, or isn't UTF-8.
    /// - Those of [`from_toml`](Self::from_toml).
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let read = read_file_or_pipe(path, MAX_BYTES);
        let bytes = read.map_err(|error| failed(error.into()))?;
        let text = String::from_utf8(bytes).map_err(|_| {
            failed(io::Error::new(
                io::ErrorKind::InvalidData,
                "stream did not contain valid UTF-8",
            ))
        })?;
        Self::from_toml(&text)
    }
}
