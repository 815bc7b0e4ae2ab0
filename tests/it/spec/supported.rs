//! The contracts inside the library: there is one for each file of `api-spec/`, equal to that file.

use std::fs;
use std::path::Path;

use chv_sandbox::spec::{self, Corrections, Release, supported};

use super::corrections::api_spec;

/// The content of `src/spec/supported/list.rs` for the files of `api-spec/`.
fn list() -> String {
    let mut releases: Vec<Release> = fs::read_dir(api_spec())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            Some(name.strip_suffix(".json")?.parse().unwrap())
        })
        .collect();
    releases.sort();
    let documents: String = releases
        .iter()
        .map(|release| {
            let Release { major, minor } = release;
            format!(
                r#"    (
        Release {{
            major: {major},
            minor: {minor},
        }},
        include_str!("../../../api-spec/{release}.json"),
    ),
"#
            )
        })
        .collect();
    format!(
        r#"// @generated from the folder api-spec/ by tests/it/spec/supported.rs: run `UPDATE=1 cargo test supported`.
//! The files of `api-spec/`.

use super::Release;

/// The contract of each release as its document has it, oldest first.
pub(super) const DOCUMENTS: &[(Release, &str)] = &[
{documents}];

/// The corrections of all releases.
pub(super) const CORRECTIONS: &str = include_str!("../../../api-spec/corrections.toml");
"#
    )
}

#[test]
fn the_list_of_supported_releases_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/spec/supported/list.rs");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, list()).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == list(),
        "src/spec/supported/list.rs does not list what is in api-spec/: run `UPDATE=1 cargo test supported`"
    );
}

#[test]
fn every_supported_contract_is_the_one_of_its_file() {
    let corrections = Corrections::read(&api_spec().join("corrections.toml")).unwrap();
    assert_eq!(supported::corrections(), &corrections);
    for release in supported::releases() {
        let mut contract = spec::read(&api_spec().join(format!("{release}.json"))).unwrap();
        assert_eq!(contract.release, release);
        assert_eq!(supported::documented(release).as_ref(), Some(&contract));
        corrections.apply(&mut contract).unwrap();
        assert_eq!(supported::contract(release), Some(contract));
    }
    assert_eq!(supported::documented("v1.0".parse().unwrap()), None);
    assert_eq!(supported::contract("v1.0".parse().unwrap()), None);
    assert_eq!(Some(supported::newest()), supported::releases().max());
}
