//! Tests of `compat probe`. Recorded and live answers are judged by the same code, so most tests need no VMM.

pub(crate) mod expected;
mod judgement;
mod outlines;
mod real;
mod refused;

use std::path::Path;

use chv_sandbox::compat::probe::{Recording, battery};
use chv_sandbox::replay::Cassette;
use chv_sandbox::spec::Release;

/// Everything that was recorded of `release`.
fn recordings(release: Release) -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(release.to_string());
    let recording = |scenario: battery::Scenario| Recording {
        scenario: scenario.name,
        cassette: Cassette::read(folder.join(scenario.name).with_extension("json")).unwrap(),
        unreached: None,
    };
    battery::all().into_iter().map(recording).collect()
}
