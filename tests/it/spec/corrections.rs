//! The corrections: each applies, once, and says why when it doesn't.

use std::fs;
use std::path::Path;

use chv_sandbox::spec::{self, CorrectionError, CorrectionProblem, Corrections, Sources};

use super::{DOCUMENT, chain, read};

pub(super) fn api_spec() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/api-spec"))
}

#[test]
fn every_correction_applies_once() {
    let corrections = Corrections::read(&api_spec().join("corrections.toml")).unwrap();
    let mut contract = spec::read(&api_spec().join("v53.0.json")).unwrap();
    corrections.apply(&mut contract).unwrap();
    for entry in &corrections.entries {
        assert!(
            !entry.why.is_empty() && entry.evidence.contains(" at v"),
            "{}",
            entry.name
        );
        // Each change by itself, so that none hides behind the failure of another.
        for change in &entry.changes {
            let alone = spec::Correction {
                changes: vec![change.clone()],
                ..entry.clone()
            };
            let again = alone.apply(&mut contract.clone());
            assert!(
                matches!(&again, Err(CorrectionError::DoesNotApply { name, .. }) if *name == entry.name),
                "{again:?}"
            );
        }
    }
}

#[test]
fn every_release_is_listed_with_its_source() {
    let sources = Sources::read(api_spec()).unwrap();
    assert!(!sources.release.is_empty());
    for (name, source) in &sources.release {
        let contract = spec::read(&api_spec().join(format!("{name}.json"))).unwrap();
        assert_eq!(
            (contract.release, &contract.release.to_string()),
            (source.tag, name)
        );
        assert!(
            source
                .commit
                .as_ref()
                .is_some_and(|commit| commit.len() == 40)
        );
    }
}

#[test]
fn a_change_that_does_not_fit_says_why() {
    fn check(change: &str, place: &str, expected: &CorrectionProblem) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corrections.toml");
        let entry = "[[correction]]\nname = 'n'\nwhy = 'w'\nevidence = 'e'\nreleases = ['v53.0']\n[[correction.change]]\n";
        fs::write(&path, format!("{entry}{change}")).unwrap();
        let corrections = Corrections::read(&path).unwrap();
        match corrections.apply(&mut read(DOCUMENT).unwrap()) {
            Err(CorrectionError::DoesNotApply {
                place: found,
                problem,
                ..
            }) => {
                assert_eq!((found.as_str(), &problem), (place, expected), "{change}");
            }
            other => panic!("{change}: {other:?}"),
        }
    }
    use CorrectionProblem::{Absent, NothingToChange, Present, WrongKind};
    check(
        "kind = 'set-format'\nof = ['Thing.size']\nformat = 'int64'",
        "Thing.size",
        &NothingToChange,
    );
    check(
        "kind = 'set-format'\nof = ['Thing.colour']\nformat = 'int64'",
        "Thing.colour",
        &Absent,
    );
    check(
        "kind = 'set-format'\nof = ['Thing.parts']\nformat = 'int64'",
        "Thing.parts",
        &WrongKind("array"),
    );
    check(
        "kind = 'set-format'\nof = ['Thing.counters{}']\nformat = 'int64'",
        "Thing.counters{}",
        &NothingToChange,
    );
    check(
        "kind = 'add-property'\nof = ['Thing.size']\nschema = {}",
        "Thing.size",
        &Present,
    );
    check(
        "kind = 'add-schema'\nname = 'Mode'\nschema = {}",
        "Mode",
        &Present,
    );
    check(
        "kind = 'remove-property'\nof = ['Thing.colour']",
        "Thing.colour",
        &Absent,
    );
    check(
        "kind = 'rename-property'\nof = 'Thing.size'\nto = 'mode'",
        "Thing.mode",
        &Present,
    );
    check(
        "kind = 'rename-property'\nof = 'Thing.colour'\nto = 'color'",
        "Thing.color",
        &Absent,
    );
    check(
        "kind = 'set-schema'\nof = ['Thing.anything']\nschema = {}",
        "Thing.anything",
        &NothingToChange,
    );
    check(
        "kind = 'require'\nof = ['Thing.size']",
        "Thing.size",
        &NothingToChange,
    );
    check(
        "kind = 'require'\nof = ['Thing.colour']",
        "Thing.colour",
        &Absent,
    );
    check(
        "kind = 'make-optional'\nof = ['Thing.mode']",
        "Thing.mode",
        &NothingToChange,
    );
    check(
        "kind = 'add-value'\nof = ['Mode']\nvalue = 'On'",
        "Mode",
        &Present,
    );
    check(
        "kind = 'add-value'\nof = ['Thing.description']\nvalue = 'On'",
        "Thing.description",
        &WrongKind("string"),
    );
    check(
        "kind = 'set-default'\nof = ['Mode']\ndefault = 'Off'",
        "Mode",
        &NothingToChange,
    );
    check(
        "kind = 'set-default'\nof = ['Thing.mode']\ndefault = 'Off'",
        "Thing.mode",
        &WrongKind("reference"),
    );
    check(
        "kind = 'remove-default'\nof = ['Thing.size']",
        "Thing.size",
        &NothingToChange,
    );
    check(
        "kind = 'add-status'\nof = ['/vm.add-thing']\nstatus = 204",
        "/vm.add-thing",
        &Present,
    );
    check(
        "kind = 'add-status'\nof = ['/vm.add']\nstatus = 204",
        "/vm.add",
        &Absent,
    );
    check(
        "kind = 'remove-status'\nof = ['/vm.add-thing']\nstatus = 405",
        "/vm.add-thing",
        &NothingToChange,
    );
    check(
        "kind = 'move-status'\nof = ['/vm.add-thing']\nfrom = 200\nto = 204",
        "/vm.add-thing",
        &Present,
    );
    check(
        "kind = 'move-status'\nof = ['/vm.add-thing']\nfrom = 405\nto = 500",
        "/vm.add-thing",
        &Absent,
    );
}

#[test]
fn a_list_of_corrections_is_read_strictly() {
    fn check(text: &str, problem: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corrections.toml");
        fs::write(&path, text).unwrap();
        let error = Corrections::read(&path).unwrap_err();
        assert!(chain(&error).contains(problem), "{}", chain(&error));
    }
    let entry = |releases: &str, change: &str| {
        format!(
            "[[correction]]\nname = 'n'\nwhy = 'w'\nevidence = 'e'\nreleases = [{releases}]\nchange = [{change}]\n"
        )
    };
    check("[[corection]]", "unknown field");
    check(&entry("", ""), "names no release");
    check(&entry("'53'", ""), "not the tag of a release");
    check(&entry("'v53.0'", "{ kind = 'forget' }"), "unknown variant");
    check(
        &entry("'v53.0'", "{ kind = 'require', of = ['A.'] }"),
        "names no place",
    );
    check(
        &entry("'v53.0'", "").repeat(2),
        "two corrections called `n`",
    );
}
