//! [`GuestChecks`]: the checks of a restored guest beside its descriptor count. They show that the guest is the
//! snapshot's (its nonce), and that it has renewed its random pool and its clock, which all guests of one snapshot
//! would share otherwise.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CheckOutcome, CheckSource, ResetCheck};
use crate::guest::protocol::Extension;
use crate::machine::{GuestReading, Reading};

/// How far a guest's clock may be from the host's. A round trip that takes longer raises this limit to its own
/// duration.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(50);

/// Whether a reset passes if the guest lacks an extension that resets use: the guest holds no nonce, can't reseed its
/// random pool, can't set its clock, or doesn't say what its clock shows.
///
/// This concerns older guests only. A guest that announces an extension and doesn't do what it announces has diverged,
/// whatever this setting is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OlderGuest {
    /// The reset passes. In the report, the check of each missing extension is
    /// [`NotApplicable`](CheckOutcome::NotApplicable).
    #[default]
    Accept,
    /// The reset doesn't pass: the check of a missing extension is [`Disagreed`](CheckOutcome::Disagreed), and the
    /// sandbox halts.
    Refuse,
}

impl OlderGuest {
    fn outcome(self) -> CheckOutcome {
        match self {
            OlderGuest::Accept => CheckOutcome::NotApplicable,
            OlderGuest::Refuse => CheckOutcome::Disagreed,
        }
    }
}

/// The reading of a guest, with what it is compared with.
pub(super) struct GuestChecks<'a> {
    /// The nonce that was put into the guest's memory when the snapshot was made. `None` if its guest can't hold one.
    pub(super) nonce: Option<&'a str>,
    pub(super) guest: &'a Reading<GuestReading>,
    pub(super) older: OlderGuest,
}

impl GuestChecks<'_> {
    pub(super) fn all(&self) -> [ResetCheck; 3] {
        [self.nonce(), self.randomness(), self.clock()]
    }

    /// Compares the nonces. The check says only whether they are equal.
    fn nonce(&self) -> ResetCheck {
        let found = self.guest.answered().map(|guest| {
            let hello = guest.hello.as_ref();
            hello.and_then(|hello| hello.nonce.as_deref())
        });
        let (outcome, found) = match (self.nonce, found) {
            (None, _) => (
                self.older.outcome(),
                "the golden snapshot's guest holds no nonce",
            ),
            (Some(_), None) => (CheckOutcome::Silent, "no answer"),
            (Some(_), Some(None)) => (
                CheckOutcome::Disagreed,
                "no nonce: this guest was booted, not restored",
            ),
            (Some(expected), Some(Some(found))) if expected == found => {
                (CheckOutcome::Agreed, "the same nonce")
            }
            (Some(_), Some(Some(_))) => (CheckOutcome::Disagreed, "another nonce"),
        };
        ResetCheck {
            source: CheckSource::GuestNonce,
            outcome,
            expected: "the nonce of the golden snapshot".to_owned(),
            found: found.to_owned(),
        }
    }

    fn randomness(&self) -> ResetCheck {
        let (outcome, found) = match self.guest.answered() {
            None => (CheckOutcome::Silent, "no answer"),
            Some(guest) if reseeded(guest) => (CheckOutcome::Agreed, "it was reseeded"),
            Some(guest) if knows(guest, Extension::Reseed) => (
                CheckOutcome::Disagreed,
                "it was not reseeded, although the guest announces that it can",
            ),
            Some(_) => (self.older.outcome(), "the guest can't reseed it"),
        };
        ResetCheck {
            source: CheckSource::GuestRandomness,
            outcome,
            expected: "the guest's random pool was reseeded".to_owned(),
            found: found.to_owned(),
        }
    }

    /// The skew is known as a range. The clock is wrong if even the least skew of that range is too large.
    fn clock(&self) -> ResetCheck {
        let older = |found: &str| (self.older.outcome(), found.to_owned());
        let (outcome, found) = match self.guest.answered() {
            None => (CheckOutcome::Silent, "no answer".to_owned()),
            Some(guest) if !knows(guest, Extension::Clock) => {
                older("the guest can't set its clock")
            }
            Some(guest) => match guest.clock {
                Some(skew) => {
                    let allowed = CLOCK_TOLERANCE.max(skew.uncertainty());
                    let outcome = match skew.at_least() <= allowed {
                        true => CheckOutcome::Agreed,
                        false => CheckOutcome::Disagreed,
                    };
                    let (least, most) = (skew.at_least(), skew.at_most());
                    (outcome, format!("off by {least:.1?} to {most:.1?}"))
                }
                None if clock_set(guest) => {
                    older("the clock was set, and the guest doesn't say what it shows")
                }
                None => (
                    CheckOutcome::Disagreed,
                    "the guest could not set its clock".to_owned(),
                ),
            },
        };
        ResetCheck {
            source: CheckSource::GuestClock,
            outcome,
            expected: format!(
                "the guest's clock is within {CLOCK_TOLERANCE:?} of the host's, or the round trip where that is longer"
            ),
            found,
        }
    }
}

/// Whether the guest announces the extension.
fn knows(guest: &GuestReading, extension: Extension) -> bool {
    let hello = guest.hello.as_ref();
    hello.is_some_and(|hello| hello.supports(extension))
}

/// Whether the guest says that it has reseeded its random pool.
pub(super) fn reseeded(guest: &GuestReading) -> bool {
    let renewed = guest.renewed.as_ref();
    renewed.is_some_and(|renewed| renewed.reseeded)
}

/// Whether the guest says that it has set its clock.
pub(super) fn clock_set(guest: &GuestReading) -> bool {
    let renewed = guest.renewed.as_ref();
    renewed.is_some_and(|renewed| renewed.clock_set)
}
