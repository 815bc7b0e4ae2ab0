//! A probe, and how it came out.

use std::fmt;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::attacker::{Attacker, Trouble};
use crate::causes::Causes;
use crate::sanitize;

/// How many pieces of evidence a verdict keeps.
const MAX_EVIDENCE: usize = 8;

/// How long each may be, in characters.
const LONGEST: usize = 300;

/// One attack.
#[derive(Clone, Copy)]
pub struct Probe {
    /// Its name, which stays the same.
    pub name: &'static str,
    /// What it belongs to.
    pub family: Family,
    /// What it tries.
    pub tries: &'static str,
    /// What would be a breach.
    pub breach: &'static str,
    pub(super) attempt: Attempt,
}

/// Makes the attempt of a probe.
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

/// What a probe attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Family {
    /// What a tool leaves for the next one.
    Markers,
    /// The host's files and devices, and the confinement of a tool.
    Host,
    /// Memory, processes, disk and output.
    Exhaustion,
    /// A process that acts after its tool has ended.
    TimeBomb,
    /// Results that a tool writes in the guest's place.
    Forged,
    /// The channel between guest and host.
    Channel,
    /// Network where none is given.
    Network,
    /// The lies that a reset has to find.
    Substrate,
    /// The resets of the battery itself.
    Resets,
}

impl Family {
    /// Its name in the report.
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

/// How a probe came out. In JSON the field `verdict`, with `evidence` or `reason` beside it, which hold no control character.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It was tried, and nothing came of it.
    Passed {
        /// What was tried, how often, and what came back.
        evidence: Vec<String>,
    },
    /// A breach.
    Failed {
        /// What was seen, at most 8 pieces of at most 300 characters.
        evidence: Vec<String>,
    },
    /// It could not be tried, or it could not be decided. This counts as not passed.
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

    /// Nothing is known of the probe, since the attack could not be made.
    pub(super) fn undecided(trouble: &Trouble) -> Verdict {
        Verdict::skipped(Causes(trouble).to_string())
    }

    /// Whether it was tried, and nothing came of it.
    pub fn is_passed(&self) -> bool {
        matches!(self, Verdict::Passed { .. })
    }

    /// Whether there was a breach.
    pub fn is_failed(&self) -> bool {
        matches!(self, Verdict::Failed { .. })
    }

    /// Its name in the report.
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
    fn evidence_is_bounded_and_speaks_to_no_terminal() {
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
