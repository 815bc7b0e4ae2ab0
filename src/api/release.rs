//! The release of a VMM ([`Release`]).

use std::fmt;
use std::str::FromStr;

/// A release of Cloud Hypervisor, such as v53.0. Ordered from older to newer.
///
/// Its text is the name of upstream's tag: `v53.0`, with the patch number only when it isn't 0. It is parsed from a tag
/// (`v51.2`) and from the version that `vmm.ping` tells (`51.2.0`). The part from a `-` or `+` on is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// The first number, which each regular release raises.
    pub major: u32,
    /// The second number, which a release of fixes raises.
    pub minor: u32,
    /// The third number, 0 in every release up to v53.0.
    pub patch: u32,
}

impl Release {
    /// The release `v<major>.<minor>`.
    pub const fn new(major: u32, minor: u32) -> Release {
        Release {
            major,
            minor,
            patch: 0,
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.major, self.minor)?;
        if self.patch != 0 {
            write!(f, ".{}", self.patch)?;
        }
        Ok(())
    }
}

impl FromStr for Release {
    type Err = ParseReleaseError;

    fn from_str(text: &str) -> Result<Release, ParseReleaseError> {
        parse(text).ok_or_else(|| ParseReleaseError {
            // The text comes from outside: enough is kept to recognise it.
            text: text.chars().take(64).collect(),
        })
    }
}

fn parse(text: &str) -> Option<Release> {
    let numbers = text.strip_prefix('v').unwrap_or(text);
    let numbers = numbers.split(['-', '+']).next()?;
    let mut numbers = numbers.split('.');
    let major = number(numbers.next()?)?;
    let minor = number(numbers.next()?)?;
    let patch = numbers.next().map_or(Some(0), number)?;
    numbers.next().is_none().then_some(Release {
        major,
        minor,
        patch,
    })
}

/// A decimal number without the sign that `u32::from_str` would take.
fn number(digits: &str) -> Option<u32> {
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

/// A text is no release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a release of Cloud Hypervisor; expected one such as v53.0 or 53.0.0")]
pub struct ParseReleaseError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tags_and_versions() {
        let check = |text: &str, shown: Option<&str>| {
            let release = text.parse::<Release>().ok();
            assert_eq!(release.map(|r| r.to_string()).as_deref(), shown, "{text}");
        };
        check("53.0.0", Some("v53.0"));
        check("v53.0", Some("v53.0"));
        check("51.2.0", Some("v51.2"));
        check("v51.2.3", Some("v51.2.3"));
        check("v52.0-dirty", Some("v52.0"));
        check("v52.0-12-g0123abc", Some("v52.0"));
        check("", None);
        check("v", None);
        check("53", None);
        check("53.", None);
        check("53.0.", None);
        check("53.0.0.0", None);
        check("+53.0", None);
        check("53.-1", None);
        check("99999999999.0", None);
    }

    #[test]
    fn newer_is_greater() {
        assert!(Release::new(52, 0) > Release::new(51, 2));
        assert!(Release::new(51, 2) > Release::new(51, 0));
        assert!(Release::new(100, 0) > Release::new(53, 0));
    }
}
