//! A tool, as the agent asks for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Error, ToolRefusal};
use crate::guest::protocol::{ToolDispatch, ToolName};

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolInvocation {
    /// Names this run; no two in flight may share it.
    pub command_id: String,
    /// The tool's name, 1 to 256 characters, from the image's allow-list.
    pub tool: String,
    /// The tool's parameters. Which ones there are is said by the image's tools file.
    pub params: Value,
    /// How long the tool may run, in milliseconds.
    pub deadline_ms: u64,
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

    /// How long the tool may run.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

impl TryFrom<ToolInvocation> for ToolDispatch {
    type Error = Error;

    fn try_from(invocation: ToolInvocation) -> Result<Self, Error> {
        let refused = |source| Error::ToolRefused(ToolRefusal::Name(source));
        Ok(ToolDispatch {
            command_id: invocation.command_id,
            tool: ToolName::new(invocation.tool).map_err(refused)?,
            params: invocation.params,
            deadline_ms: invocation.deadline_ms,
        })
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
