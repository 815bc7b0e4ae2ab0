//! What was seen of one scenario.

use crate::replay::Cassette;

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The scenario's name.
    pub scenario: &'static str,
    /// What was asked and answered: as many of the scenario's steps, from the first on, as could be played.
    pub cassette: Cassette,
    /// What couldn't be reached, if the scenario was not played to its end for that.
    pub unreached: Option<Unreached>,
}

/// A state or an ability that this VMM couldn't be brought to, here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// What: `a running VM`.
    pub what: &'static str,
    /// The server's own words.
    pub said: String,
}
