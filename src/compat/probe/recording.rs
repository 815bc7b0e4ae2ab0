//! [`Recording`]: the exchanges of one scenario.

use crate::replay::Cassette;

/// The result of playing a scenario.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The name of the scenario.
    pub scenario: &'static str,
    /// The exchanges of the steps that were played, from the first one on.
    pub cassette: Cassette,
    /// The state that couldn't be reached, if the scenario ended early for that reason.
    pub unreached: Option<Unreached>,
}

/// A state or a feature that the VMM couldn't reach on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unreached {
    /// The state: `a running VM`.
    pub what: &'static str,
    /// The server's error text.
    pub said: String,
}
