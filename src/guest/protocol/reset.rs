//! The frames of a reset: [`ResetSignal`] and its answer [`ResetAck`]. They belong to the protocol, so both sides know
//! them, but neither side of this crate sends them: a guest's report on its own reset proves nothing, and the host
//! verifies a reset itself.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::closed::Closed;

/// Tells the guest that a reset was made.
///
/// The protocol has this frame and its answer, and guests of other makers may expect them. A host of this crate never
/// sends the frame, so it closes the channel when a [`ResetAck`] comes. `chv-guest` closes the channel when it receives
/// the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetSignal {
    /// The id that the host has chosen for this reset, any text; the answer repeats it.
    pub reset_id: String,
    /// Why the host made the reset.
    pub reason: ResetReason,
}

/// Why a reset is made. On the wire the names are in snake case, such as `post_dispatch`; another name is
/// [malformed](super#malformed-frames).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// A tool has run.
    PostDispatch,
    /// The host found something suspicious.
    OnSuspicion,
    /// The sandbox was idle.
    OnIdle,
    /// An answer named a command that was not running.
    OnCommandIdMismatch,
}

/// The guest's report on a reset: the answer to a [`ResetSignal`]. A host of this crate closes the channel when one
/// comes, since it has sent no signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetAck {
    /// The [`ResetSignal::reset_id`] of the reset that this answers.
    pub reset_id: String,
    /// When the reset was complete, by the guest's clock. On the wire: RFC 3339.
    pub reset_complete_at: Timestamp,
    /// The digest that the guest expects of its file system: `sha256:` and 64 lower-case hexadecimal digits, or
    /// `sha256:not-configured`. Another text is [malformed](super#malformed-frames).
    #[serde(deserialize_with = "digest")]
    pub golden_hash: String,
    /// Whether the guest found that every reading agrees.
    pub verification_passed: bool,
    /// The readings that the guest compared.
    #[serde(deserialize_with = "details")]
    pub verification_details: VerificationDetails,
}

/// The readings that a guest compared after a reset, each beside its expected value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationDetails {
    /// The digest of the guest's file system: `sha256:` and 64 lower-case hexadecimal digits, or
    /// `sha256:not-configured`. Another text is [malformed](super#malformed-frames).
    #[serde(deserialize_with = "digest")]
    pub fs_hash: String,
    /// The expected digest of the guest's file system, in the same form.
    #[serde(deserialize_with = "digest")]
    pub fs_hash_baseline: String,
    /// Whether the guest says that the two digests are the same. Decoding doesn't compare them.
    pub fs_hash_match: bool,
    /// The number of open descriptors in the guest, without sockets.
    pub open_fd_count: u64,
    /// The expected number of open descriptors in the guest, without sockets.
    pub open_fd_count_baseline: u64,
    /// The VM's state, as the guest says it.
    pub vmm_api_state: VmmApiState,
    /// The expected state of the VM.
    pub expected_vmm_api_state: VmmApiState,
    /// What the host is to do because of this comparison.
    pub divergence_action: DivergenceAction,
}

/// The VM's state, reduced to the four states of the protocol. On the wire the names are in lower case; another name is
/// [malformed](super#malformed-frames).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmmApiState {
    /// The VM runs.
    Running,
    /// The VM is paused.
    Paused,
    /// The VM is created, or has been shut down.
    Stopped,
    /// Any other state.
    Error,
}

/// What the host does after a verification. On the wire the names are in lower case; another name is
/// [malformed](super#malformed-frames).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DivergenceAction {
    /// Nothing: every reading agrees with its expected value.
    None,
    /// The sandbox is halted: it runs no further tool.
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
