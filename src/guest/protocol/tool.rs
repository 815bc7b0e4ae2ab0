//! [`ToolDispatch`], which runs a tool, and [`EvidenceChunk`], which carries its output.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::{MAX_EVIDENCE_CHUNK, MAX_TOOL_NAME};

/// Asks the guest to run one tool. The guest answers with [`EvidenceChunk`]s and a [`ToolResult`](super::ToolResult).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolDispatch {
    /// The id that the host has chosen for this command; every answer to it repeats the id. `chv-guest` answers an id
    /// of more than 256 bytes, and the id of a running tool, with an [`ErrorEvent`](super::ErrorEvent), and runs
    /// nothing.
    pub command_id: String,
    /// The name of a tool on the guest's allow-list. If the guest has no such tool, the outcome is
    /// [`NoSuchTool`](super::ToolOutcomeKind::NoSuchTool).
    pub tool: ToolName,
    /// The tool's parameters: a JSON object, or null for none. The tool's declaration in the guest maps them to
    /// arguments. Decoding accepts any JSON; for parameters that the tool doesn't accept, the outcome is
    /// [`Refused`](super::ToolOutcomeKind::Refused).
    pub params: Value,
    /// How long the tool may run, in milliseconds from its start. Afterwards the guest kills it and every process that
    /// it started. For more than 3,600,000 (one hour) the outcome in `chv-guest` is
    /// [`Refused`](super::ToolOutcomeKind::Refused).
    pub deadline_ms: u64,
}

/// A piece of a tool's output. The pieces of standard output come before those of standard error.
///
/// The bytes of all chunks of a command, decoded as UTF-8 with U+FFFD in place of invalid bytes, are the `stdout` and
/// then the `stderr` of its result. This includes a text that the guest itself writes, such as the reason why it didn't
/// run a tool. The chunks don't tell where standard output ends; the sizes in the result's
/// [`ResultDetails`](super::ResultDetails) do. With them each stream is decoded separately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceChunk {
    /// The [`ToolDispatch::command_id`] of the command whose output this is. If no such command waits for its result or
    /// has timed out, the host closes the channel.
    pub command_id: String,
    /// The chunk's number within its command: 1, 2, 3 and so on. If a number is missing, repeated or out of order, the
    /// command fails with an [`EvidenceError`](crate::vsock::EvidenceError).
    pub seq: u64,
    /// The output's bytes, at most [`MAX_EVIDENCE_CHUNK`] (1 MiB). On the wire: base64 with the standard alphabet and
    /// padding; another text is [malformed](super#malformed-frames).
    #[serde(with = "base64_bytes")]
    pub chunk_data: Vec<u8>,
    /// The number of bytes in `chunk_data`, before base64, as the guest states it. If it is wrong, the host closes the
    /// channel.
    pub chunk_size: u32,
    /// Whether this is the command's last chunk. The last chunk may be empty. If it doesn't come before the result, the
    /// command fails with [`EvidenceError::Gap`](crate::vsock::EvidenceError::Gap).
    pub is_terminal: bool,
}

/// A tool's name: 1 to 256 Unicode characters. A frame with another name is [malformed](super#malformed-frames).
///
/// An image's tools file can declare only names of 1 to 64 of `a-z`, `0-9`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolName(String);

impl ToolName {
    /// A name of 1 to [`MAX_TOOL_NAME`] (256) characters. Whether the guest has such a tool shows when it is called.
    ///
    /// # Errors
    ///
    /// [`ToolNameError`] if `name` is empty or has more characters.
    pub fn new(name: impl Into<String>) -> Result<ToolName, ToolNameError> {
        let name = name.into();
        match name.chars().take(MAX_TOOL_NAME + 1).count() {
            1..=MAX_TOOL_NAME => Ok(ToolName(name)),
            _ => Err(ToolNameError { bytes: name.len() }),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ToolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ToolName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ToolName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ToolName::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A tool's name is empty or too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tool's name has 1 to {MAX_TOOL_NAME} characters, not {bytes} bytes")]
pub struct ToolNameError {
    bytes: usize,
}

pub(super) mod base64_bytes {
    //! Bytes as base64 (standard alphabet, padded).

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = STANDARD
            .decode(text.as_bytes())
            .map_err(de::Error::custom)?;
        if bytes.len() > MAX_EVIDENCE_CHUNK {
            return Err(de::Error::custom(format_args!(
                "{} bytes are more than the {MAX_EVIDENCE_CHUNK} of a chunk",
                bytes.len()
            )));
        }
        Ok(bytes)
    }
}
