//! A tool, as the agent asks for it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Error, ToolRefusal};
use crate::guest::protocol::{MAX_ENVIRONMENT, OpenRun, StdinMode, ToolDispatch, ToolName};
use crate::sanitize;

/// How many tools a sandbox runs before it has to be reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolsPerReset {
    /// One: from the moment at which it is sent, the sandbox takes no other before a reset.
    #[default]
    One,
    /// Any number, also at the same time. A tool finds what those before it have left.
    Many,
}

/// One run of one tool.
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
    /// Names this run; no two in flight may share it.
    pub command_id: String,
    /// The tool's name, 1 to 256 characters, from the image's allow-list.
    pub tool: String,
    /// The tool's parameters. Which ones there are is said by the image's tools file.
    pub params: Value,
    /// How long the tool may run, in milliseconds.
    pub deadline_ms: u64,
    /// What the tool's standard input is. Anything but nothing needs [`Sandbox::start`](super::Sandbox::start), as the two
    /// fields below do.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin: StdinMode,
    /// Environment variables beside the guest's own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub env: BTreeMap<String, String>,
    /// The tool's directory; the guest's own choice unless set.
    #[serde(rename = "cwd", default, skip_serializing_if = "is_default")]
    pub directory: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ToolInvocation {
    /// The deadline of an invocation that sets none: 30 s.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

    /// A run of `tool` under a random command id (UUID version 4), with [`DEFAULT_DEADLINE`](Self::DEFAULT_DEADLINE). The
    /// name is checked when the tool is executed.
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

    /// The same under this command id, of at most 256 bytes.
    #[must_use]
    pub fn with_command_id(self, command_id: impl Into<String>) -> ToolInvocation {
        ToolInvocation {
            command_id: command_id.into(),
            ..self
        }
    }

    /// The same with this deadline, rounded up to whole milliseconds. A guest of this project takes at most one hour.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> ToolInvocation {
        let millis = deadline.as_nanos().div_ceil(1_000_000);
        ToolInvocation {
            deadline_ms: u64::try_from(millis).unwrap_or(u64::MAX),
            ..self
        }
    }

    /// The same with a standard input, which [`RunningTool::stdin`](super::RunningTool::stdin) gives. The image's tools file has
    /// to allow it for the tool.
    #[must_use]
    pub fn with_stdin(self) -> ToolInvocation {
        ToolInvocation {
            stdin: StdinMode::Piped,
            ..self
        }
    }

    /// The same with this environment variable. The image's tools file has to allow its name for the tool. `Debug` doesn't show
    /// the value.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> ToolInvocation {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The same in this directory of the guest, an absolute path. The image's tools file has to allow that for the tool.
    #[must_use]
    pub fn with_directory(self, directory: impl Into<String>) -> ToolInvocation {
        ToolInvocation {
            directory: Some(directory.into()),
            ..self
        }
    }

    /// How long the tool may run.
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

/// What no guest takes. Which names a tool may be given is for the guest to say.
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

/// Why no tool can be given an environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// No variable can have this name: it isn't made of ASCII letters, digits and `_`, or begins with a digit.
    #[error("no environment variable can have the name {name:?}")]
    Name {
        /// Its first 64 characters, as a [line](crate::sanitize::line).
        name: String,
    },
    /// The value has a NUL in it.
    #[error("the value of the environment variable {name} has a NUL in it")]
    Value {
        /// The variable's name.
        name: String,
    },
    /// Names and values have more bytes together than a run may be given.
    #[error("the environment has {bytes} bytes, more than {MAX_ENVIRONMENT}")]
    TooLarge {
        /// How many bytes they have.
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
    fn an_invocation_stays_as_it_is_on_the_wire() {
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
    fn what_only_a_tool_with_streams_has_is_on_the_wire_where_it_is_set() {
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
    fn an_environment_that_no_tool_can_have_is_refused() {
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
    fn a_deadline_is_rounded_up_to_what_the_wire_can_say() {
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
