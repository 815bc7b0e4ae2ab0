//! The corrections: each must apply exactly once, or say why it doesn't.

use std::fs;
use std::path::Path;
use std::process::Command;

use chv_sandbox::spec::{
    self, CORRECTIONS, Correction, CorrectionError, CorrectionProblem, Corrections, Release,
    Sources,
};

use super::{DOCUMENT, chain, read};

pub(crate) fn api_spec() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/api-spec"))
}

#[test]
fn every_correction_applies_to_every_contract_once() {
    let fit = spec::check(api_spec()).unwrap();
    assert!(fit.is_good(), "{fit:#?}");
    let corrections = Corrections::read(&api_spec().join(CORRECTIONS)).unwrap();
    for (release, documented) in spec::contracts(api_spec()).unwrap() {
        let mut corrected = documented;
        corrections.apply(&mut corrected).unwrap();
        // Each change is applied by itself, so that a failure of one hides no other.
        for entry in &corrections.entries {
            for change in &entry.changes {
                if !entry.holds(change, release) {
                    continue;
                }
                let alone = Corrections {
                    entries: vec![Correction {
                        changes: vec![change.clone()],
                        ..entry.clone()
                    }],
                };
                let again = alone.apply(&mut corrected.clone());
                assert!(
                    matches!(&again, Err(CorrectionError::DoesNotApply { name, .. }) if *name == entry.name),
                    "{release}: {again:?}"
                );
            }
        }
    }
}

#[test]
fn every_correction_says_why_and_on_what_evidence() {
    let releases: Vec<Release> = spec::contracts(api_spec()).unwrap().into_keys().collect();
    let corrections = Corrections::read(&api_spec().join(CORRECTIONS)).unwrap();
    for entry in &corrections.entries {
        let name = &entry.name;
        assert!(entry.why.ends_with('.'), "{name}");
        assert!(entry.evidence.contains(" at v"), "{name}");
        let ranges = entry.changes.iter().map(|change| change.releases);
        for range in ranges.chain([entry.releases]) {
            for end in [range.since, range.until].into_iter().flatten() {
                assert!(releases.contains(&end), "{name}: {end} has no contract");
            }
        }
    }
}

#[test]
fn a_corrected_contract_has_a_canonical_form_too() {
    let folder = tempfile::tempdir().unwrap();
    let corrections = Corrections::read(&api_spec().join(CORRECTIONS)).unwrap();
    for (release, mut contract) in spec::contracts(api_spec()).unwrap() {
        corrections.apply(&mut contract).unwrap();
        let path = folder.path().join(format!("{release}.json"));
        fs::write(&path, contract.canonical()).unwrap();
        assert_eq!(spec::read(&path).unwrap(), contract);
    }
}

/// Every entry that does not fit is reported, not only the first.
#[test]
fn a_list_that_does_not_fit_is_reported_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = folder.path().join("upstream.yaml");
    fs::write(&upstream, DOCUMENT).unwrap();
    for release in ["v52.0", "v53.0"] {
        spec::import(&upstream, release.parse().unwrap(), None, folder.path()).unwrap();
    }
    let entry = "[[correction]]\nname = 'n'\nwhy = 'w'\nevidence = 'e'\nreleases = '..v53.0'\n";
    let changes = "change = [
        { kind = 'require', of = ['Thing.colour', 'Thing.size'] },
        { kind = 'rename-path', of = '/vm.add-thing', to = '/vm.add' },
        { kind = 'rename-path', of = '/vm.add-thing', to = '/vm.add' },
        { kind = 'rename-path', releases = 'v53.0..', of = '/vm.add', to = '/vm.add-thing' },
    ]";
    fs::write(folder.path().join(CORRECTIONS), format!("{entry}{changes}")).unwrap();
    let fit = spec::check(folder.path()).unwrap();
    let said = |failures: &[CorrectionError]| {
        failures
            .iter()
            .map(|failure| chain(failure))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        said(&fit.contracts[&"v52.0".parse().unwrap()]),
        [
            "the correction `n` does not apply to v52.0 at `Thing.colour`: the contract has no such place",
            "the correction `n` does not apply to v52.0 at `Thing.size`: there is nothing to change",
            "the correction `n` does not apply to v52.0 at `/vm.add`: the contract has it already",
        ]
    );
    assert_eq!(
        said(&fit.contracts[&"v53.0".parse().unwrap()]),
        [""; 0],
        "the entry ends before it"
    );
    assert_eq!(
        said(&fit.idle),
        ["a change of the correction `n` holds for no release that has a contract (v53.0..)"]
    );
    assert!(!fit.is_good());
}

#[test]
fn every_release_is_listed_with_its_source() {
    let sources = Sources::read(api_spec()).unwrap();
    let mut there: Vec<String> = fs::read_dir(api_spec())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    there.sort();
    assert!(there.contains(&"v44.0".to_owned()) && there.contains(&"v53.0".to_owned()));
    assert!(sources.release.keys().eq(&there), "{there:?}");
    let hexadecimal = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    for (name, source) in &sources.release {
        let path = api_spec().join(format!("{name}.json"));
        let contract = spec::read(&path).unwrap();
        assert_eq!(
            (contract.release, &contract.release.to_string()),
            (source.tag, name)
        );
        assert_eq!(
            contract.canonical(),
            fs::read_to_string(&path).unwrap(),
            "{name}"
        );
        let commit = source.commit.as_deref().unwrap();
        assert!(hexadecimal(commit, 40), "{name}: {commit}");
        assert!(hexadecimal(&source.sha256, 64), "{name}: {}", source.sha256);
    }
}

#[test]
fn the_command_lists_what_does_not_apply_and_fails() {
    let run = |from: &Path| {
        Command::new(env!("CARGO_BIN_EXE_chv-sandbox"))
            .args(["spec", "check", "--from"])
            .arg(from)
            .output()
            .unwrap()
    };
    let good = run(api_spec());
    assert!(good.status.success(), "{good:?}");

    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(api_spec()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    // A contract of a release whose document has fixed what an entry with an open end corrects.
    let mended = folder.path().join("v53.0.json");
    let text = fs::read_to_string(&mended).unwrap();
    fs::write(
        &mended,
        text.replace("\"generic-vhost-user\"", "\"generic_vhost_user\""),
    )
    .unwrap();
    let bad = run(folder.path());
    assert_eq!(bad.status.code(), Some(1));
    let said = String::from_utf8(bad.stdout).unwrap();
    assert!(said.contains("v52.0: all corrections apply"), "{said}");
    assert!(said.contains("v53.0: 1 change does not apply"), "{said}");
    assert!(said.contains("`VmConfig.generic_vhost_user`"), "{said}");
}

#[test]
fn a_change_that_does_not_fit_says_why() {
    fn check(change: &str, place: &str, expected: &CorrectionProblem) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corrections.toml");
        let entry = "[[correction]]\nname = 'n'\nwhy = 'w'\nevidence = 'e'\nreleases = 'v53.0..'\n[[correction.change]]\n";
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
        "kind = 'rename-path'\nof = '/vm.add'\nto = '/vm.put'",
        "/vm.put",
        &Absent,
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
            "[[correction]]\nname = 'n'\nwhy = 'w'\nevidence = 'e'\nreleases = '{releases}'\nchange = [{change}]\n"
        )
    };
    check("[[corection]]", "unknown field");
    check(&entry("", ""), "not a range of releases");
    check(&entry("53..", ""), "not the tag of a release");
    check(&entry("v53.0..v53.0", ""), "holds no release");
    check(&entry("..", "{ kind = 'forget' }"), "unknown variant");
    check(
        &entry("..", "{ kind = 'require', of = ['A.b'], off = [] }"),
        "unknown field",
    );
    check(
        &entry("..", "{ kind = 'require', releases = 'v53.0', of = [] }"),
        "not a range of releases",
    );
    check(
        &entry("..", "{ kind = 'require', of = ['A.'] }"),
        "is not a place",
    );
    check(&entry("..", "").repeat(2), "two corrections called `n`");
}
