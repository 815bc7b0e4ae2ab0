//! `compat diff` corrects a document that it compares with a release, and leaves two documents that it compares with
//! each other as they are.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{compat, contract, text};

/// Upstream's document of a release after `change`. The document does not name its release.
fn upstream(folder: &Path, release: &str, change: impl FnOnce(String) -> String) -> PathBuf {
    let named = fs::read_to_string(contract(release)).unwrap();
    let version = format!("\"version\": \"{release}\"");
    assert!(named.contains(&version));
    let path = folder.join(format!("{release}.yaml"));
    let document = change(named.replace(&version, "\"version\": \"0.3.0\""));
    fs::write(&path, document).unwrap();
    path
}

fn unchanged(document: String) -> String {
    document
}

/// The findings of `compat diff` as level, rule and path, without those of the level `Info`.
fn diff(arguments: &[&str]) -> Vec<String> {
    let done = compat([&["diff"], arguments, &["--format", "json"]].concat());
    let report: Value = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|_| panic!("{arguments:?}: {}", text(&done.stderr)));
    let breaking = report["verdict"] == "breaking";
    assert_eq!(
        done.status.code(),
        Some(i32::from(breaking)),
        "{arguments:?}"
    );
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["level"] != "info")
        .map(|finding| {
            let of = |key: &str| finding[key].as_str().unwrap();
            format!("{} {} {}", of("level"), of("id"), of("path"))
        })
        .collect()
}

#[test]
fn a_release_and_its_own_document_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for release in ["v44.0", "v46.0", "v51.2", "v52.0", "v53.0"] {
        let path = upstream(folder.path(), release, unchanged);
        let path = path.to_str().unwrap();
        for arguments in [[release, path], [path, release]] {
            let done = compat([&["diff"], &arguments[..]].concat());
            assert_eq!(done.status.code(), Some(0), "{}", text(&done.stdout));
            assert!(
                text(&done.stdout).contains("is the same as"),
                "{}",
                text(&done.stdout)
            );
        }
    }
}

#[test]
fn a_document_of_another_release_is_that_release() {
    let folder = tempfile::tempdir().unwrap();
    let path = upstream(folder.path(), "v52.0", unchanged);
    let path = path.to_str().unwrap();
    assert_eq!(diff(&[path, "v53.0"]), diff(&["v52.0", "v53.0"]));
    assert_eq!(diff(&["v53.0", path]), diff(&["v53.0", "v52.0"]));
    assert_eq!(diff(&["v44.0", path]), diff(&["v44.0", "v52.0"]));
}

#[test]
fn a_changed_document_breaks_in_nothing_but_its_changes() {
    let folder = tempfile::tempdir().unwrap();
    let renamed = |document: String| document.replace("\"/vm.resume\"", "\"/vm.continue\"");
    for release in ["v50.2", "v52.0", "v53.0"] {
        let path = upstream(folder.path(), release, renamed);
        let path = path.to_str().unwrap();
        // The corrections of that endpoint no longer find their place, which is a warning.
        let breaks = |arguments: &[&str]| {
            let mut found = diff(arguments);
            found.retain(|line| line.starts_with("breaking"));
            found
        };
        assert_eq!(
            breaks(&[release, path]),
            ["breaking endpoint-removed /paths/~1vm.resume"]
        );
        assert_eq!(
            breaks(&[path, release]),
            ["breaking endpoint-removed /paths/~1vm.continue"]
        );
    }
}

#[test]
fn corrections_that_do_not_apply_are_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let path = upstream(folder.path(), "v53.0", |document| {
        document.replace("\"generic-vhost-user\"", "\"generic_vhost_user\"")
    });
    let path = path.to_str().unwrap();
    let stale =
        "warning correction-stale /components/schemas/VmConfig/properties/generic_vhost_user";
    assert_eq!(diff(&["v53.0", path]), [stale]);
    assert_eq!(diff(&[path, "v53.0"]), [stale]);
}

#[test]
fn as_is_leaves_the_document_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = upstream(folder.path(), "v53.0", unchanged);
    let path = path.to_str().unwrap();
    for arguments in [["v53.0", path, "--as-is"], [path, "v53.0", "--as-is"]] {
        let found = diff(&arguments);
        assert!(found.len() > 20, "{found:?}");
        assert!(!found.iter().any(|line| line.contains("correction-stale")));
    }
}

#[test]
fn two_documents_are_compared_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (
        upstream(folder.path(), "v51.2", unchanged),
        upstream(folder.path(), "v52.0", unchanged),
    );
    let paths = [one.to_str().unwrap(), other.to_str().unwrap()];
    let found = diff(&paths);
    // The documents differ as upstream's do; the module `history` has the same list.
    assert_eq!(
        found,
        [
            "breaking request-reference-changed /components/schemas/VmConfig/properties/serial",
            "breaking response-reference-changed /components/schemas/VmConfig/properties/serial",
            "warning response-enum-value-added /components/schemas/DebugConsoleConfig/properties/mode",
        ]
    );
    assert_eq!(diff(&[paths[0], paths[1], "--as-is"]), found);
}
