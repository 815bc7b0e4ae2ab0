//! The outlines of the recorded releases, which are compiled into the library.
//!
//! `tests/it/compat/probe/outlines.rs` generates them from the cassettes. After a recording, run `UPDATE=1 cargo test
//! outlines`. The module is public for this test only.

use super::outline::Outline;
use crate::spec::Release;

macro_rules! outlines {
    ($($major:literal, $minor:literal;)*) => {
        const OUTLINES: &[(Release, &str)] = &[$((
            Release { major: $major, minor: $minor },
            include_str!(concat!("outlines/v", $major, ".", $minor, ".json")),
        )),*];
    };
}

outlines! { 44, 0; 46, 0; 48, 0; 50, 2; 51, 2; 52, 0; 53, 0; }

/// Returns the recorded releases, oldest first.
pub fn releases() -> impl DoubleEndedIterator<Item = Release> + ExactSizeIterator {
    OUTLINES.iter().map(|(release, _)| *release)
}

/// Returns the outline of `release`. `None` if it was not recorded.
pub fn outline(release: Release) -> Option<Outline> {
    let (_, text) = OUTLINES.iter().find(|(known, _)| *known == release)?;
    Some(serde_json::from_str(text).expect("a test reads every outline"))
}
