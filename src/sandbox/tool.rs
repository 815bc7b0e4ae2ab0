//! [`ToolInvocation`]: the agent's request to run a tool.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Error, ToolRefusal};
use crate::guest::protocol::{MAX_ENVIRONMENT, OpenRun, StdinMode, ToolDispatch, ToolName};
use crate::sanitize;

/// How many tools a sandbox runs before it has to be reset. In TOML: `tools_per_reset = "one"` or
/// `tools_per_reset = "many"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolsPerReset {
    /// One tool. From the moment at which it is sent to the guest, the sandbox takes no other tool before a reset.
    #[default]
    One,
    /// Any number of tools, also at the same time. A tool sees the files and processes that earlier tools have left.
    Many,
}

/// A request to run one tool once: which tool, with which parameters, and for how long.
///
/// [`Sandbox::execute_tool`](super::Sandbox::execute_tool) takes an invocation without `stdin`, `env` and `directory`;
/// [`Sandbox::start`](super::Sandbox::start) takes any.
///
/// The image's *tools file* declares the tools of a guest, and what each of them takes: `Toolbox::from_json` in
/// [`guest::dispatcher`](crate::guest) describes the file. An invocation that doesn't fit it is not an error of the
/// call: the outcome is [`NoSuchTool`](super::ToolOutcome::NoSuchTool) or [`Refused`](super::ToolOutcome::Refused).
///
/// ```
/// use std::time::Duration;
///
/// use chv_sandbox::sandbox::ToolInvocation;
/// use serde_json::json;
///
/// let invocation = ToolInvocation::new("echo", json!({ "message": "hello" }))
///     .with_deadline(Duration::from_secs(5));
/// assert_eq!(invocation.deadline_ms, 5_000);
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ToolInvocation {
    /// The name of this run, at most 256 bytes. No two runs that are under way may have the same.
    pub command_id: String,
    /// The tool's name, 1 to 256 characters. The guest has the built-in tools and those of the image's tools file.
    pub tool: String,
    /// The tool's parameters: a JSON object, or null for none. The image's tools file says which ones a tool takes.
    pub params: Value,
    /// How long the tool may run, in milliseconds. Then the guest kills it. The guest of this crate refuses more than
    /// 3,600,000, which is one hour.
    pub deadline_ms: u64,
    /// The tool's standard input: none, or piped from the caller. The latter needs
    /// [`Sandbox::start`](super::Sandbox::start), and a tool for which the image's tools file allows it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin: StdinMode,
    /// Environment variables beside those that the guest sets, by name. They need
    /// [`Sandbox::start`](super::Sandbox::start), and a tool for which the image's tools file allows these names. All
    /// names and values together have at most 32 KiB ([`MAX_ENVIRONMENT`]).
    #[serde(default, skip_serializing_if = "is_default")]
    pub env: BTreeMap<String, String>,
    /// The tool's working directory in the guest (`cwd` in JSON): an existing directory, named by an absolute path of
    /// at most 4,095 bytes without `..`. It needs [`Sandbox::start`](super::Sandbox::start), and a tool for which the
    /// image's tools file allows it. With `None` the directory is the tools file's default, or else `/`.
    #[serde(rename = "cwd", default, skip_serializing_if = "is_default")]
    pub directory: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ToolInvocation {
    /// The deadline of an invocation that sets none: 30 seconds.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

    /// An invocation of `tool` with a random command id (UUID version 4) and
    /// [`DEFAULT_DEADLINE`](Self::DEFAULT_DEADLINE). The name is checked when the invocation is sent:
    /// [`ToolRefusal::Name`].
    pub fn new(tool: impl Into<String>, params: Value) -> ToolInvocation {
        ToolInvocation {
            command_id: Uuid::new_v4().to_string(),
            tool: tool.into(),
            params,
            deadline_ms: 0,
            stdin: StdinMode::None,
            env: BTreeMap::new(),
            directory: None,
        }
        .with_deadline(Self::DEFAULT_DEADLINE)
    }

    /// Sets [`command_id`](Self::command_id), of at most 256 bytes.
    #[must_use]
    pub fn with_command_id(self, command_id: impl Into<String>) -> ToolInvocation {
        ToolInvocation {
            command_id: command_id.into(),
            ..self
        }
    }

    /// Sets the deadline, rounded up to whole milliseconds. The guest of this crate refuses a deadline of more than one
    /// hour.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> ToolInvocation {
        let millis = deadline.as_nanos().div_ceil(1_000_000);
        ToolInvocation {
            deadline_ms: u64::try_from(millis).unwrap_or(u64::MAX),
            ..self
        }
    }

    /// Gives the tool a standard input, which the caller writes through
    /// [`RunningTool::stdin`](super::RunningTool::stdin). The image's tools file has to allow it for the tool.
    #[must_use]
    pub fn with_stdin(self) -> ToolInvocation {
        ToolInvocation {
            stdin: StdinMode::Piped,
            ..self
        }
    }

    /// Adds an environment variable. The image's tools file has to allow its name for the tool. `Debug` doesn't show
    /// the value.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> ToolInvocation {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the tool's working [`directory`](Self::directory), an absolute path in the guest. The image's tools file
    /// has to allow that for the tool.
    #[must_use]
    pub fn with_directory(self, directory: impl Into<String>) -> ToolInvocation {
        ToolInvocation {
            directory: Some(directory.into()),
            ..self
        }
    }

    /// How long the tool may run: [`deadline_ms`](Self::deadline_ms) as a duration.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

impl TryFrom<ToolInvocation> for ToolDispatch {
    type Error = Error;

    fn try_from(invocation: ToolInvocation) -> Result<Self, Error> {
        let ToolInvocation {
            stdin,
            env,
            directory,
            ..
        } = &invocation;
        if *stdin != StdinMode::None || !env.is_empty() || directory.is_some() {
            return Err(Error::ToolRefused(ToolRefusal::NeedsStreams));
        }
        Ok(ToolDispatch {
            command_id: invocation.command_id,
            tool: tool_name(invocation.tool)?,
            params: invocation.params,
            deadline_ms: invocation.deadline_ms,
        })
    }
}

impl TryFrom<ToolInvocation> for OpenRun {
    type Error = Error;

    fn try_from(invocation: ToolInvocation) -> Result<Self, Error> {
        let tool = tool_name(invocation.tool)?;
        check_env(&invocation.env)
            .map_err(|source| Error::ToolRefused(ToolRefusal::Environment(source)))?;
        Ok(OpenRun {
            command_id: invocation.command_id,
            tool,
            params: invocation.params,
            deadline_ms: invocation.deadline_ms,
            stdin: invocation.stdin,
            env: invocation.env,
            cwd: invocation.directory,
        })
    }
}

fn tool_name(name: String) -> Result<ToolName, Error> {
    ToolName::new(name).map_err(|source| Error::ToolRefused(ToolRefusal::Name(source)))
}

/// Refuses an environment that no guest accepts. The guest itself then checks the names against its tools file.
fn check_env(env: &BTreeMap<String, String>) -> Result<(), EnvironmentError> {
    let mut bytes = 0;
    for (name, value) in env {
        bytes += name.len() + value.len();
        let is_name = name
            .bytes()
            .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
        if !is_name || name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
            let name = sanitize::line(name, 64);
            return Err(EnvironmentError::Name { name });
        }
        if value.contains('\0') {
            return Err(EnvironmentError::Value { name: name.clone() });
        }
    }
    match bytes > MAX_ENVIRONMENT {
        true => Err(EnvironmentError::TooLarge { bytes }),
        false => Ok(()),
    }
}

/// Why an invocation's environment is refused: the cause of [`ToolRefusal::Environment`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// A name is empty, begins with a digit, or has a character other than ASCII letters, digits and `_`.
    #[error("no environment variable can have the name {name:?}")]
    Name {
        /// The first 64 characters of the name, as one [line](crate::sanitize::line).
        name: String,
    },
    /// A value has a NUL character in it.
    #[error("the value of the environment variable {name} has a NUL in it")]
    Value {
        /// The variable's name.
        name: String,
    },
    /// All names and values together are longer than 32 KiB ([`MAX_ENVIRONMENT`]).
    #[error("the environment has {bytes} bytes, more than {MAX_ENVIRONMENT}")]
    TooLarge {
        /// The length of all names and values together, in bytes.
        bytes: usize,
    },
}

impl fmt::Debug for ToolInvocation {
    /// Without the values of the environment, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolInvocation")
            .field("command_id", &self.command_id)
            .field("tool", &self.tool)
            .field("params", &self.params)
            .field("deadline_ms", &self.deadline_ms)
            .field("stdin", &self.stdin)
            .field("env", &self.env.keys())
            .field("directory", &self.directory)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_invocation_without_streams_has_four_fields_on_the_wire() {
        let wire = json!({"command_id": "c1", "tool": "echo", "params": {"message": "hi"}, "deadline_ms": 250});
        let invocation = ToolInvocation::new("echo", json!({"message": "hi"}))
            .with_command_id("c1")
            .with_deadline(Duration::from_millis(250));
        assert_eq!(serde_json::to_value(&invocation).unwrap(), wire);
        assert_eq!(
            serde_json::from_value::<ToolInvocation>(wire).unwrap(),
            invocation
        );
    }

    #[test]
    fn the_fields_of_a_tool_with_streams_are_on_the_wire_if_they_are_set() {
        let invocation = ToolInvocation::new("sh", Value::Null)
            .with_command_id("c1")
            .with_deadline(Duration::from_millis(1))
            .with_stdin()
            .with_env("TOKEN", "hunter2")
            .with_directory("/work");
        let wire = json!({
            "command_id": "c1", "tool": "sh", "params": null, "deadline_ms": 1,
            "stdin": "piped", "env": { "TOKEN": "hunter2" }, "cwd": "/work",
        });
        assert_eq!(serde_json::to_value(&invocation).unwrap(), wire);
        let read: ToolInvocation = serde_json::from_value(wire).unwrap();
        assert_eq!(read, invocation);
        let shown = format!("{invocation:?}");
        assert!(
            shown.contains("TOKEN") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn an_environment_that_no_process_can_have_is_refused() {
        let check = |name: &str, value: &str| {
            check_env(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
        };
        assert_eq!(check("_a9", ""), Ok(()));
        assert_eq!(check("A", &"x".repeat(MAX_ENVIRONMENT - 1)), Ok(()));
        let bytes = MAX_ENVIRONMENT + 1;
        let too_large = Err(EnvironmentError::TooLarge { bytes });
        assert_eq!(check("A", &"x".repeat(MAX_ENVIRONMENT)), too_large);
        let name = "A".to_owned();
        assert_eq!(check("A", "\0"), Err(EnvironmentError::Value { name }));
        for name in ["", "9A", "A=", "A B", "A\0", "ä"] {
            assert!(
                matches!(check(name, ""), Err(EnvironmentError::Name { .. })),
                "{name:?}"
            );
        }
    }

    #[test]
    fn each_invocation_has_an_id_of_its_own() {
        let (one, two) = (
            ToolInvocation::new("whoami", Value::Null),
            ToolInvocation::new("whoami", Value::Null),
        );
        assert_ne!(one.command_id, two.command_id);
        let id: Uuid = one.command_id.parse().unwrap();
        assert_eq!(id.get_version(), Some(uuid::Version::Random));
        assert_eq!(one.deadline(), Duration::from_secs(30));
    }

    #[test]
    fn a_deadline_is_rounded_up_to_whole_milliseconds() {
        let millis = |deadline| {
            let invocation = ToolInvocation::new("whoami", Value::Null);
            invocation.with_deadline(deadline).deadline_ms
        };
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_micros(1_001)), 2);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
