//! [`ResetState`]: the result of a reset in the shape that the agent's protocol fixes, and [`Reset`], which tells a
//! verified reset from one of scaffold mode.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ResetReport;
use crate::guest::protocol::{DivergenceAction, VmmApiState};
use crate::overlay::Digest;

/// The result of a reset. The [agent's protocol](super#the-agents-protocol) fixes these fields and their order; all
/// further details are in the [`ResetReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetState {
    /// When the reset ended, in UTC.
    pub reset_at: Timestamp,
    /// The baseline of the file system: the golden snapshot's digest of the overlay, or of the root disk if there is no
    /// overlay. [`FsHash::NotConfigured`] in [scaffold mode](super::SandboxOrigin::Scaffold) and from a stub.
    pub golden_hash: FsHash,
    /// Whether every source agreed with its baseline. Always true in scaffold mode, where nothing is verified: see
    /// [`ResetOutcome::verdict`].
    pub verification_passed: bool,
    /// The reading of each source, and its baseline.
    pub verification_details: VerificationDetails,
}

/// The readings of the three sources (disk, guest, VMM), each with its baseline. In
/// [scaffold mode](super::SandboxOrigin::Scaffold), and from a stub, no disk and no descriptor is read: the digests are
/// [`FsHash::NotConfigured`] and the counts are 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationDetails {
    /// The digest of a disk: of the first disk that disagrees with its baseline; if all agree, of the overlay, or of
    /// the root disk if there is no overlay.
    pub fs_hash: FsHash,
    /// The baseline of that disk.
    pub fs_hash_baseline: FsHash,
    /// Whether the disk has the digest and the length of its baseline. True in scaffold mode, where nothing is
    /// compared.
    pub fs_hash_match: bool,
    /// The number of open descriptors of all guest processes, without sockets. 0 if the guest gave no answer.
    pub open_fd_count: u64,
    /// The baseline of that number.
    pub open_fd_count_baseline: u64,
    /// The VM's state as the VMM's API says it. `error` if the VMM gave no answer.
    pub vmm_api_state: VmmApiState,
    /// The baseline of that state.
    pub expected_vmm_api_state: VmmApiState,
    /// `none` if the verification passed, otherwise `halt`.
    pub divergence_action: DivergenceAction,
}

/// The digest of a disk, or the marker of scaffold mode, which has no digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsHash {
    /// As text `sha256:` and 64 hexadecimal digits.
    Digest(Digest),
    /// As text `sha256:not-configured`.
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

/// A reset that was made. The two variants keep a caller from taking a reset of scaffold mode for a verified one.
#[derive(Clone, Debug)]
pub enum Reset {
    /// All three sources agreed with their baselines.
    Verified(ResetOutcome),
    /// [Scaffold mode](super::SandboxOrigin::Scaffold), or a stub: the sandbox was reverted, and **nothing was
    /// verified**.
    Scaffold(ResetOutcome),
}

/// The result of a reset: its state in the protocol's shape, and a report of everything else.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ResetOutcome {
    /// The result in the shape of the agent's protocol.
    pub state: ResetState,
    /// Each check, disk and step of the reset.
    pub report: ResetReport,
}

impl ResetOutcome {
    /// What the reset proved.
    pub fn verdict(&self) -> ResetVerdict {
        match (self.state.verification_passed, self.state.golden_hash) {
            (true, FsHash::Digest(_)) => ResetVerdict::Verified,
            (true, FsHash::NotConfigured) => ResetVerdict::Unverified,
            (false, _) => ResetVerdict::Failed,
        }
    }

    /// The result of a reset without baselines: [`FsHash::NotConfigured`] for the digests, 0 for the counts, and the
    /// VM's live state.
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

/// What a reset proved, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetVerdict {
    /// Every source agreed with its baseline.
    Verified,
    /// Scaffold mode, or a stub: **nothing was verified**, although `verification_passed` is true.
    Unverified,
    /// A source disagreed with its baseline or gave no answer.
    Failed,
}

impl ResetVerdict {
    /// The word: `verified`, `unverified` or `failed`.
    pub fn name(self) -> &'static str {
        match self {
            ResetVerdict::Verified => "verified",
            ResetVerdict::Unverified => "unverified",
            ResetVerdict::Failed => "failed",
        }
    }
}

impl fmt::Display for ResetVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Reset {
    /// The outcome of either variant.
    pub fn outcome(&self) -> &ResetOutcome {
        match self {
            Reset::Verified(outcome) | Reset::Scaffold(outcome) => outcome,
        }
    }

    /// Whether this is [`Reset::Verified`].
    pub fn is_verified(&self) -> bool {
        matches!(self, Reset::Verified(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_shape_of_the_protocol() {
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
