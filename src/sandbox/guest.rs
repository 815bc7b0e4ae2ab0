//! What is checked of a restored guest beside its count: that it is the snapshot's, and that it has renewed what
//! all that are restored from one snapshot would share.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Check, Outcome, Source};
use crate::guest::protocol::Extension;
use crate::machine::{GuestReading, Reading};

/// How far a guest's clock may be from the host's, where the round trip doesn't take longer.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(50);

/// What comes of a guest that is older than an extension of the channel: one that holds no nonce, can't reseed its
/// random pool or set its clock, or doesn't say what its clock shows.
///
/// A guest that has the extension and doesn't do what it says is no such guest: it has diverged, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OlderGuest {
    /// It passes, and the report says what could not be done: its check is
    /// [`NotApplicable`](Outcome::NotApplicable).
    #[default]
    Accept,
    /// It doesn't pass: its check is [`Disagreed`](Outcome::Disagreed), and the sandbox halts.
    Refuse,
}

impl OlderGuest {
    fn outcome(self) -> Outcome {
        match self {
            OlderGuest::Accept => Outcome::NotApplicable,
            OlderGuest::Refuse => Outcome::Disagreed,
        }
    }
}

/// The guest's word, with what is held against it.
pub(super) struct GuestChecks<'a> {
    /// The nonce that was imprinted when the snapshot was made, if it was.
    pub(super) nonce: Option<&'a str>,
    pub(super) guest: &'a Reading<GuestReading>,
    pub(super) older: OlderGuest,
}

impl GuestChecks<'_> {
    pub(super) fn all(&self) -> [Check; 3] {
        [self.nonce(), self.randomness(), self.clock()]
    }

    /// The nonce itself is a secret between host and guest, so the report doesn't show it.
    fn nonce(&self) -> Check {
        let found = self.guest.answered().map(|guest| {
            let hello = guest.hello.as_ref();
            hello.and_then(|hello| hello.nonce.as_deref())
        });
        let (outcome, found) = match (self.nonce, found) {
            (None, _) => (
                self.older.outcome(),
                "the golden snapshot's guest holds no nonce",
            ),
            (Some(_), None) => (Outcome::Silent, "no answer"),
            (Some(_), Some(None)) => (
                Outcome::Disagreed,
                "no nonce: this guest was booted, not restored",
            ),
            (Some(expected), Some(Some(found))) if expected == found => {
                (Outcome::Agreed, "the same nonce")
            }
            (Some(_), Some(Some(_))) => (Outcome::Disagreed, "another nonce"),
        };
        Check {
            source: Source::GuestNonce,
            outcome,
            expected: "the nonce of the golden snapshot".to_owned(),
            found: found.to_owned(),
        }
    }

    fn randomness(&self) -> Check {
        let (outcome, found) = match self.guest.answered() {
            None => (Outcome::Silent, "no answer"),
            Some(guest) if reseeded(guest) => (Outcome::Agreed, "it was"),
            Some(guest) if knows(guest, Extension::Reseed) => {
                (Outcome::Disagreed, "it was not, although the guest can")
            }
            Some(_) => (self.older.outcome(), "the guest can't"),
        };
        Check {
            source: Source::GuestRandomness,
            outcome,
            expected: "the guest's random pool was reseeded".to_owned(),
            found: found.to_owned(),
        }
    }

    /// The skew is known as a range: a clock counts as wrong when all of it is.
    fn clock(&self) -> Check {
        let older = |found: &str| (self.older.outcome(), found.to_owned());
        let (outcome, found) = match self.guest.answered() {
            None => (Outcome::Silent, "no answer".to_owned()),
            Some(guest) if !knows(guest, Extension::Clock) => older("the guest can't set it"),
            Some(guest) => match guest.clock {
                Some(skew) => {
                    let allowed = CLOCK_TOLERANCE.max(skew.uncertainty());
                    let outcome = match skew.at_least() <= allowed {
                        true => Outcome::Agreed,
                        false => Outcome::Disagreed,
                    };
                    let (least, most) = (skew.at_least(), skew.at_most());
                    (outcome, format!("off by {least:.1?} to {most:.1?}"))
                }
                None if clock_set(guest) => older("it was set, and the guest doesn't say to what"),
                None => (Outcome::Disagreed, "the guest could not set it".to_owned()),
            },
        };
        Check {
            source: Source::GuestClock,
            outcome,
            expected: format!(
                "the guest's clock is within {CLOCK_TOLERANCE:?} of the host's, or the round trip where that is longer"
            ),
            found,
        }
    }
}

/// Whether the guest lists the extension.
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
