//! Frames around a reset. What a guest says of its own reset is evidence of nothing; the host verifies by itself.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::closed::Closed;

/// Tells the guest that a reset was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetSignal {
    /// Names this reset in its answer.
    pub reset_id: String,
    /// Why it was made.
    pub reason: ResetReason,
}

/// Why a reset is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// A tool has run.
    PostDispatch,
    /// Something looked wrong.
    OnSuspicion,
    /// Nothing else was to be done.
    OnIdle,
    /// An answer named a command that was not running.
    OnCommandIdMismatch,
}

/// What the guest says of a reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetAck {
    /// The reset that this answers.
    pub reset_id: String,
    /// When the guest says it was complete.
    pub reset_complete_at: Timestamp,
    /// A digest, `sha256:` and 64 lower-case hexadecimal digits.
    #[serde(deserialize_with = "digest")]
    pub golden_hash: String,
    /// Whether the guest says that all is well.
    pub verification_passed: bool,
    /// What was compared.
    #[serde(deserialize_with = "details")]
    pub verification_details: VerificationDetails,
}

/// What a verification compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationDetails {
    /// The digest that was found.
    #[serde(deserialize_with = "digest")]
    pub fs_hash: String,
    /// The digest that was expected.
    #[serde(deserialize_with = "digest")]
    pub fs_hash_baseline: String,
    /// Whether the two are the same.
    pub fs_hash_match: bool,
    /// The descriptors that were counted.
    pub open_fd_count: u64,
    /// The descriptors that were expected.
    pub open_fd_count_baseline: u64,
    /// The VM's state.
    pub vmm_api_state: VmmApiState,
    /// The state that was expected.
    pub expected_vmm_api_state: VmmApiState,
    /// What follows.
    pub divergence_action: DivergenceAction,
}

/// The VM's state, in the protocol's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmmApiState {
    /// The VM runs.
    Running,
    /// The VM is paused.
    Paused,
    /// The VM is created, or has been shut down.
    Stopped,
    /// Anything else.
    Error,
}

/// What follows from a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DivergenceAction {
    /// Nothing diverged.
    None,
    /// Nothing more is run.
    Halt,
}

pub(super) fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.strip_prefix("sha256:") {
        Some("not-configured") => Ok(text),
        Some(hex)
            if hex.len() == 64 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) =>
        {
            Ok(text)
        }
        _ => Err(de::Error::custom(
            "a digest is `sha256:` and 64 lower-case hexadecimal digits",
        )),
    }
}

fn details<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VerificationDetails, D::Error> {
    let Closed(details) = Closed::deserialize(deserializer)?;
    Ok(details)
}
