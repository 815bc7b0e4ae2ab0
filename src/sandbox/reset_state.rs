//! The result of a reset in the shape that the agent's protocol fixes.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ResetReport;
use crate::guest::protocol::{DivergenceAction, VmmApiState};
use crate::overlay::Digest;

/// What a reset found. Its fields and their order are the agent's protocol; everything beyond is in the
/// [`ResetReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetState {
    /// When the reset ended, in UTC.
    pub reset_at: Timestamp,
    /// The baseline of the file system: the digest of the overlay in the golden snapshot.
    pub golden_hash: FsHash,
    /// Whether every source agreed with its baseline.
    pub verification_passed: bool,
    /// What each source said.
    pub verification_details: VerificationDetails,
}

/// What each of the three sources said, beside what it should have said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationDetails {
    /// The digest of the disk: of the overlay, or of the disk that disagreed.
    pub fs_hash: FsHash,
    /// The baseline of that disk.
    pub fs_hash_baseline: FsHash,
    /// Whether they are the same.
    pub fs_hash_match: bool,
    /// The guest's open descriptors, without sockets; 0 when the guest was silent.
    pub open_fd_count: u64,
    /// Their baseline.
    pub open_fd_count_baseline: u64,
    /// The VM's state; `error` when the VMM was silent.
    pub vmm_api_state: VmmApiState,
    /// What it should be.
    pub expected_vmm_api_state: VmmApiState,
    /// What follows.
    pub divergence_action: DivergenceAction,
}

/// The digest of a disk, or the marker of scaffold mode, in which there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsHash {
    /// `sha256:` and 64 hexadecimal digits.
    Digest(Digest),
    /// `sha256:not-configured`.
    NotConfigured,
}

const NOT_CONFIGURED: &str = "sha256:not-configured";

impl fmt::Display for FsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FsHash::Digest(digest) => digest.fmt(f),
            FsHash::NotConfigured => f.write_str(NOT_CONFIGURED),
        }
    }
}

impl Serialize for FsHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FsHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            NOT_CONFIGURED => Ok(FsHash::NotConfigured),
            text => text
                .parse()
                .map(FsHash::Digest)
                .map_err(serde::de::Error::custom),
        }
    }
}

/// A reset that didn't fail. Which of the two it was can't be overlooked.
#[derive(Clone, Debug)]
pub enum Reset {
    /// All three sources agreed with their baselines.
    Verified(ResetOutcome),
    /// Scaffold mode: the sandbox was reverted, and **nothing was verified**.
    Scaffold(ResetOutcome),
}

/// What a reset found, with how it went.
#[derive(Clone, Debug)]
pub struct ResetOutcome {
    /// In the shape of the agent's protocol.
    pub state: ResetState,
    /// Everything else.
    pub report: ResetReport,
}

impl ResetOutcome {
    /// The result of a reset without baselines: markers instead of digests, nothing counted, the live state.
    pub(super) fn unverified(live: VmmApiState, report: ResetReport) -> Self {
        let state = ResetState {
            reset_at: Timestamp::now(),
            golden_hash: FsHash::NotConfigured,
            verification_passed: true,
            verification_details: VerificationDetails {
                fs_hash: FsHash::NotConfigured,
                fs_hash_baseline: FsHash::NotConfigured,
                fs_hash_match: true,
                open_fd_count: 0,
                open_fd_count_baseline: 0,
                vmm_api_state: live,
                expected_vmm_api_state: VmmApiState::Running,
                divergence_action: DivergenceAction::None,
            },
        };
        ResetOutcome { state, report }
    }
}

impl Reset {
    /// What was found, verified or not.
    pub fn outcome(&self) -> &ResetOutcome {
        match self {
            Reset::Verified(outcome) | Reset::Scaffold(outcome) => outcome,
        }
    }

    /// Whether it was verified.
    pub fn is_verified(&self) -> bool {
        matches!(self, Reset::Verified(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_the_protocols() {
        let digest = FsHash::Digest(Digest::OF_NOTHING);
        let state = ResetState {
            reset_at: "2026-01-02T03:04:05.6Z".parse().unwrap(),
            golden_hash: digest,
            verification_passed: false,
            verification_details: VerificationDetails {
                fs_hash: FsHash::NotConfigured,
                fs_hash_baseline: digest,
                fs_hash_match: false,
                open_fd_count: 12,
                open_fd_count_baseline: 11,
                vmm_api_state: VmmApiState::Paused,
                expected_vmm_api_state: VmmApiState::Running,
                divergence_action: DivergenceAction::Halt,
            },
        };
        let expected = format!(
            concat!(
                r#"{{"reset_at":"2026-01-02T03:04:05.6Z","golden_hash":"{0}","verification_passed":false,"#,
                r#""verification_details":{{"fs_hash":"sha256:not-configured","fs_hash_baseline":"{0}","#,
                r#""fs_hash_match":false,"open_fd_count":12,"open_fd_count_baseline":11,"#,
                r#""vmm_api_state":"paused","expected_vmm_api_state":"running","divergence_action":"halt"}}}}"#
            ),
            Digest::OF_NOTHING
        );
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<ResetState>(&text).unwrap(), state);
    }

    #[test]
    fn a_further_field_is_refused() {
        let text = r#"{"reset_at":"2026-01-02T03:04:05Z","more":1}"#;
        let error = serde_json::from_str::<ResetState>(text).unwrap_err();
        assert!(error.to_string().contains("more"), "{error}");
    }
}
