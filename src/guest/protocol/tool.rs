//! Frames that run a tool and bring back what it wrote.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::{MAX_EVIDENCE_CHUNK, MAX_TOOL_NAME};

/// Asks the guest to run one tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolDispatch {
    /// Names this command in every answer to it.
    pub command_id: String,
    /// Which tool of the guest's allow-list.
    pub tool: ToolName,
    /// What the tool's explicit mapping turns into arguments.
    pub params: Value,
    /// How long the tool may run, in milliseconds; the guest kills it then.
    pub deadline_ms: u64,
}

/// A piece of a tool's output, standard output before standard error.
///
/// All chunks of a command together are the output that its result tells: their bytes, read as UTF-8 with U+FFFD for what
/// is none, are its `stdout` followed by its `stderr`. This holds for the guest's own words too, such as those for a tool
/// that it didn't run. The chunks don't say where one stream ends and the other begins; the result's
/// [`ResultDetails`](super::ResultDetails) do, and each stream is then read by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceChunk {
    /// The command whose output this is.
    pub command_id: String,
    /// The chunk's place, from 1.
    pub seq: u64,
    /// The output's bytes (base64 on the wire), at most [`MAX_EVIDENCE_CHUNK`].
    #[serde(with = "base64_bytes")]
    pub chunk_data: Vec<u8>,
    /// How many bytes the guest says there are. A host that finds others closes the channel.
    pub chunk_size: u32,
    /// Whether this is the command's last chunk.
    pub is_terminal: bool,
}

/// A tool's name: 1 to 256 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolName(String);

impl ToolName {
    /// Accepts 1 to [`MAX_TOOL_NAME`] characters.
    ///
    /// # Errors
    ///
    /// [`ToolNameError`] when it has none, or more.
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
