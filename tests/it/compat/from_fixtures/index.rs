//! Writes the index of which operation is in which cassettes, for `compat check`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use chv_sandbox::client::Release;
use chv_sandbox::spec::supported;

use super::{assert_fresh, cassettes};

#[test]
fn the_index_of_the_cassettes_is_fresh() {
    let operations: BTreeSet<String> = supported::releases()
        .filter_map(supported::contract)
        .flat_map(|contract| contract.paths.into_keys())
        .map(|path| path.trim_start_matches('/').to_owned())
        .collect();
    let mut index: BTreeMap<String, BTreeMap<String, BTreeSet<Release>>> = BTreeMap::new();
    for (name, cassette) in cassettes() {
        for exchange in &cassette.exchanges {
            let operation = exchange.request.path.strip_prefix("/api/v1/");
            if let Some(operation) = operation.filter(|operation| operations.contains(*operation)) {
                let cassettes = index.entry(operation.to_owned()).or_default();
                let releases = cassettes.entry(name.clone()).or_default();
                releases.insert(cassette.release);
            }
        }
    }
    let mut text = "\
// @generated from fixtures/ by tests/it/compat/from_fixtures/index.rs: run `UPDATE=1 cargo test from_fixtures`.
//! Which operation is in which cassettes.

/// A cassette's name, and the releases that it was recorded of.
type Recorded = (&'static str, &'static [&'static str]);

/// The cassettes that each operation is in.
#[rustfmt::skip]
pub(super) const CASSETTES: &[(&str, &[Recorded])] = &[
"
    .to_owned();
    for (operation, cassettes) in &index {
        writeln!(text, "    ({operation:?}, &[").unwrap();
        for (name, releases) in cassettes {
            let releases: Vec<String> = releases.iter().map(Release::to_string).collect();
            writeln!(text, "        ({name:?}, &{releases:?}),").unwrap();
        }
        text += "    ]),\n";
    }
    text += "];\n";
    assert_fresh("src/compat/check/recorded.rs", &text);
}
