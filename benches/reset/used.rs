//! The uses of a guest before it is reset.

use chv_sandbox::sandbox::ToolInvocation;
use serde_json::json;

use super::{Outcome, limits};

/// What a guest has done since its last reset.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    /// Nothing after the last answer of the reset.
    Nothing,
    /// It has run a tool as a process.
    Tool,
}

impl Use {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Use::Nothing => "resets of a guest that did nothing since the last",
            Use::Tool => "resets of a guest that has run a tool",
        }
    }
}

/// The tool for [`Use::Tool`].
pub(crate) fn tool() -> Outcome<ToolInvocation> {
    let invocation = ToolInvocation::new("echo", json!({ "message": "hello" }));
    Ok(invocation.with_deadline(limits()?.settle))
}

/// A tool that writes 64 MiB of memory and no file.
pub(crate) fn writing_tool() -> Outcome<ToolInvocation> {
    let script = "dd if=/dev/zero of=/dev/null bs=64M count=1";
    let invocation = ToolInvocation::new("sh", json!({ "script": script }));
    Ok(invocation.with_deadline(limits()?.settle))
}
