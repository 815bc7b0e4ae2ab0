//! Tools, as the agent asks for them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, ToolRefusal};
use crate::guest::protocol::{ToolDispatch, ToolName, ToolResult};

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolInvocation {
    /// Names this run; no two in flight may share it.
    pub command_id: String,
    /// The tool's name, 1 to 256 characters, from the image's allow-list.
    pub tool: String,
    /// What the tool is told. Which parameters there are is the tool's matter.
    pub params: Value,
    /// How long the tool may run, in milliseconds.
    pub deadline_ms: u64,
}

/// What a tool did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolExecution {
    /// Its exit code. The guest's own: 127 unknown tool, 137 killed at the deadline, 254 the guest failed.
    pub exit_code: i32,
    /// What it wrote to its standard output, as far as the guest's limit goes.
    pub stdout: String,
    /// What it wrote to its standard error, likewise.
    pub stderr: String,
    /// The last link of the evidence chain over its output, where the guest makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_hash: Option<String>,
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

impl From<ToolResult> for ToolExecution {
    fn from(result: ToolResult) -> Self {
        ToolExecution {
            exit_code: result.exit_code,
            stdout: result.stdout,
            stderr: result.stderr,
            evidence_hash: result.evidence_hash,
        }
    }
}
