//! [`Release`]: a release of Cloud Hypervisor, named by its tag.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A release of Cloud Hypervisor, named by its tag: `v53.0`. Releases are ordered by number, so `v9.0` is before
/// `v53.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Release {
    /// The first number: 53 of `v53.0`.
    pub major: u16,
    /// The second number: 2 of `v51.2`.
    pub minor: u16,
}

impl Release {
    /// The release of a document that doesn't name its release. No tag of upstream has this value.
    pub const UNNAMED: Release = Release { major: 0, minor: 0 };
}

/// The text is not the tag of a release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the tag of a release: expected `v`, a number, a dot and a number, as in v53.0"
)]
pub struct ParseReleaseError(String);

impl FromStr for Release {
    type Err = ParseReleaseError;

    fn from_str(tag: &str) -> Result<Self, Self::Err> {
        // `u16::from_str` also accepts a sign and leading zeros, so one release could have two spellings.
        let number = |digits: &str| match digits.as_bytes() {
            [b'0'] | [b'1'..=b'9', ..] => digits.parse::<u16>().ok(),
            _ => None,
        };
        tag.strip_prefix('v')
            .and_then(|numbers| numbers.split_once('.'))
            .and_then(|(major, minor)| {
                Some(Release {
                    major: number(major)?,
                    minor: number(minor)?,
                })
            })
            .ok_or_else(|| ParseReleaseError(tag.to_owned()))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.major, self.minor)
    }
}

impl TryFrom<String> for Release {
    type Error = ParseReleaseError;

    fn try_from(tag: String) -> Result<Self, Self::Error> {
        tag.parse()
    }
}

impl From<Release> for String {
    fn from(release: Release) -> String {
        release.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_and_written_back() {
        fn check(tag: &str, expected: Option<(u16, u16)>) {
            let release = tag.parse::<Release>().ok();
            assert_eq!(
                release.map(|release| (release.major, release.minor)),
                expected,
                "{tag}"
            );
            if let Some(release) = release {
                assert_eq!(release.to_string(), tag);
            }
        }
        check("v53.0", Some((53, 0)));
        check("v51.2", Some((51, 2)));
        check("53.0", None);
        check("v53", None);
        check("v53.0.1", None);
        check("v+5.0", None);
        check("v05.0", None);
        check("v70000.0", None);
        check("v53.0/../x", None);
        check("", None);
    }

    #[test]
    fn releases_are_ordered_by_number() {
        let release = |tag: &str| tag.parse::<Release>().unwrap();
        assert!(release("v9.0") < release("v53.0"));
        assert!(release("v51.0") < release("v51.2"));
    }
}
