//! [`Probe`]: one attack, and [`Verdict`]: its result.

use std::fmt;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::attacker::{AttackError, Attacker};
use crate::causes::Causes;
use crate::sanitize;

/// How many pieces of evidence a verdict keeps.
const MAX_EVIDENCE: usize = 8;

/// The most characters of a piece of evidence.
const LONGEST: usize = 300;

/// One attack.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Probe {
    /// Its stable name.
    pub name: &'static str,
    /// The family that it belongs to.
    pub family: Family,
    /// What it tries.
    pub tries: &'static str,
    /// The result that would be a breach.
    pub breach: &'static str,
    pub(super) attempt: Attempt,
}

/// The function that carries out a probe.
pub(super) type Attempt =
    for<'a> fn(&'a mut Attacker) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe")
            .field("name", &self.name)
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

/// The target of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Family {
    /// Residue that a tool leaves for the next one.
    Markers,
    /// The host's files and devices, and the confinement of a tool.
    Host,
    /// Memory, processes, disk and output.
    Exhaustion,
    /// Processes that act after their tool has ended.
    TimeBomb,
    /// Results that a tool writes in the guest's place.
    Forged,
    /// The channel between guest and host.
    Channel,
    /// Network access, where the sandbox must have none.
    Network,
    /// False readings, which a reset must detect: see [`Substrate`](super::Substrate).
    Substrate,
    /// The resets that the other probes made.
    Resets,
}

impl Family {
    /// Its name in the report and in [`Plan::only`](super::Plan::only): the variant in snake case, such as `time_bomb`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Markers => "markers",
            Family::Host => "host",
            Family::Exhaustion => "exhaustion",
            Family::TimeBomb => "time_bomb",
            Family::Forged => "forged",
            Family::Channel => "channel",
            Family::Network => "network",
            Family::Substrate => "substrate",
            Family::Resets => "resets",
        }
    }
}

/// The result of a probe. In JSON this is the field `verdict`, with `evidence` or `reason` beside it, which hold no
/// control character.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// The attack was tried and did not succeed.
    Passed {
        /// What was tried, how often, and with which result.
        evidence: Vec<String>,
    },
    /// A breach.
    Failed {
        /// What the probe saw, at most 8 pieces of at most 300 characters.
        evidence: Vec<String>,
    },
    /// The attack could not be tried, or its result is unclear. This does not count as passed.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl Verdict {
    pub(super) fn passed(evidence: impl AsRef<str>) -> Verdict {
        Verdict::Passed {
            evidence: vec![safe(evidence.as_ref())],
        }
    }

    pub(super) fn failed<T: AsRef<str>>(evidence: impl IntoIterator<Item = T>) -> Verdict {
        let evidence = evidence.into_iter().take(MAX_EVIDENCE);
        Verdict::Failed {
            evidence: evidence.map(|piece| safe(piece.as_ref())).collect(),
        }
    }

    pub(super) fn skipped(reason: impl AsRef<str>) -> Verdict {
        Verdict::Skipped {
            reason: safe(reason.as_ref()),
        }
    }

    /// The probe is skipped, because the attack could not be carried out.
    pub(super) fn undecided(trouble: &AttackError) -> Verdict {
        Verdict::skipped(Causes(trouble).to_string())
    }

    /// Whether the attack was tried and did not succeed.
    pub fn is_passed(&self) -> bool {
        matches!(self, Verdict::Passed { .. })
    }

    /// Whether there was a breach.
    pub fn is_failed(&self) -> bool {
        matches!(self, Verdict::Failed { .. })
    }

    /// Its name in the report: `passed`, `failed` or `skipped`.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Passed { .. } => "passed",
            Verdict::Failed { .. } => "failed",
            Verdict::Skipped { .. } => "skipped",
        }
    }
}

fn safe(text: &str) -> String {
    sanitize::line(text, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_bounded_and_has_no_control_characters() {
        let hostile = format!("\u{1b}[2J{}\n", "x".repeat(1000));
        let Verdict::Failed { evidence } = Verdict::failed(vec![hostile; 100]) else {
            panic!("it is a breach");
        };
        assert_eq!(evidence.len(), MAX_EVIDENCE);
        for piece in evidence {
            assert!(piece.chars().count() <= LONGEST, "{piece}");
            assert!(!piece.chars().any(char::is_control), "{piece}");
        }
    }
}
