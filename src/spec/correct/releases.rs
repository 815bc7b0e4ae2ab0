//! [`Releases`]: the range of releases that a correction applies to.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::super::{ParseReleaseError, Release};

/// A range of releases, in the notation of Rust's ranges. `v50.2..v53.0` ends before v53.0. `v50.2..` has no end and
/// includes future releases. `..v53.0` holds every release before v53.0, and `..` holds every release.
///
/// A correction with no end is also applied to each release that is added later. If upstream has repaired its document
/// by then, the correction fails, and its range has to be closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
#[non_exhaustive]
pub struct Releases {
    /// The first release of the range. `None` if the range has no beginning.
    pub since: Option<Release>,
    /// The first release after the range. `None` if the range has no end.
    pub until: Option<Release>,
}

impl Releases {
    /// The range that holds every release.
    pub const ALL: Releases = Releases {
        since: None,
        until: None,
    };

    /// Whether `release` is in the range.
    pub fn contains(&self, release: Release) -> bool {
        self.since.is_none_or(|since| since <= release)
            && self.until.is_none_or(|until| release < until)
    }
}

/// Why a text is not a range of releases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseReleasesError {
    /// The text has no `..`.
    #[error("{0:?} is not a range of releases: expected one as `v50.2..v53.0`, `v50.2..` or `..`")]
    NoRange(String),
    /// One end of the range is not the tag of a release.
    #[error(transparent)]
    Release(#[from] ParseReleaseError),
    /// The end of the range is not later than its beginning.
    #[error(
        "the range {0:?} holds no release: its end is exclusive and must be later than its beginning"
    )]
    Empty(String),
}

impl FromStr for Releases {
    type Err = ParseReleasesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let end = |text: &str| match text {
            "" => Ok(None),
            tag => tag.parse().map(Some),
        };
        let (since, until) = text
            .split_once("..")
            .ok_or_else(|| ParseReleasesError::NoRange(text.to_owned()))?;
        let (since, until) = (end(since)?, end(until)?);
        match (since, until) {
            (Some(since), Some(until)) if until <= since => {
                Err(ParseReleasesError::Empty(text.to_owned()))
            }
            _ => Ok(Releases { since, until }),
        }
    }
}

impl TryFrom<String> for Releases {
    type Error = ParseReleasesError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Releases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(since) = self.since {
            write!(f, "{since}")?;
        }
        f.write_str("..")?;
        if let Some(until) = self.until {
            write!(f, "{until}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_written_back() {
        fn check(text: &str, valid: bool) {
            match text.parse::<Releases>() {
                Ok(releases) => assert_eq!((releases.to_string().as_str(), valid), (text, true)),
                Err(error) => assert!(!valid, "{error}"),
            }
        }
        check("..", true);
        check("v50.2..", true);
        check("..v53.0", true);
        check("v50.2..v53.0", true);
        check("v53.0..v53.0", false);
        check("v53.0..v50.2", false);
        check("v53.0", false);
        check("53..", false);
        check("v50.2...v53.0", false);
        check("", false);
    }

    #[test]
    fn the_end_of_a_range_is_exclusive() {
        fn check(releases: &str, release: &str, expected: bool) {
            let (releases, release) = (
                releases.parse::<Releases>().unwrap(),
                release.parse().unwrap(),
            );
            assert_eq!(releases.contains(release), expected, "{releases} {release}");
        }
        check("..", "v53.0", true);
        check("v50.2..v53.0", "v48.0", false);
        check("v50.2..v53.0", "v50.2", true);
        check("v50.2..v53.0", "v52.0", true);
        check("v50.2..v53.0", "v53.0", false);
        check("v50.2..", "v54.0", true);
        check("..v53.0", "v44.0", true);
        check("..v53.0", "v53.0", false);
    }
}
