//! `chv-sandbox compat check`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use chv_sandbox::compat::{self, Check, Document, Level};
use chv_sandbox::spec::{Contract, Schema, Shape, supported};
use serde_json::Value;

use super::{compat as run, contract, text};

/// Runs the check on the newest release's document, after `change` was made to it.
fn check(change: impl FnOnce(&mut Contract)) -> Check {
    let mut contract = supported::documented(supported::newest()).unwrap();
    change(&mut contract);
    let name = "document.yaml".to_owned();
    compat::check(Document {
        name,
        contract,
        corrected: false,
    })
}

fn properties<'c>(
    contract: &'c mut Contract,
    schema: &str,
) -> &'c mut std::collections::BTreeMap<String, Schema> {
    match &mut contract.schemas.get_mut(schema).unwrap().shape {
        Shape::Object { properties, .. } => properties,
        other => panic!("{schema} is a {}", other.kind()),
    }
}

/// The paths of the findings with this rule.
fn paths<'c>(check: &'c Check, rule: &str) -> Vec<&'c str> {
    let findings = check.report.findings.iter();
    let findings = findings.filter(|finding| finding.id == rule);
    findings.map(|finding| finding.path.as_str()).collect()
}

#[test]
fn the_newest_release_is_as_this_crate_has_it() {
    let check = check(|_| {});
    assert_eq!(check.report.findings, []);
    assert!(check.used.is_empty());
    for name in [contract("v53.0").as_os_str(), "v53.0".as_ref()] {
        let done = run(["check".as_ref(), name]);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stdout));
    }
}

#[test]
fn a_release_is_checked_as_its_document_is() {
    let of = |name: &OsStr| {
        let done = run(["check".as_ref(), name, "--format".as_ref(), "json".as_ref()]);
        assert_eq!(done.status.code(), Some(1), "{}", text(&done.stderr));
        let report: Value = serde_json::from_slice(&done.stdout).unwrap();
        report["findings"].clone()
    };
    assert_eq!(of("v52.0".as_ref()), of(contract("v52.0").as_os_str()));
}

#[test]
fn another_base_path_touches_every_call() {
    let check = check(|contract| contract.servers = vec!["http://localhost/api/v2".to_owned()]);
    let found = &check.used[0];
    assert_eq!(
        (found.id, found.path.as_str()),
        ("base-path-removed", "/servers")
    );
    assert!(found.affects.contains("vm.restore"), "{found:?}");
    assert!(paths(&check, "cassette-touched").contains(&"/paths/~1vm.restore"));
}

#[test]
fn an_answer_may_be_given_by_another_entry_of_its_status() {
    let with = |changed: bool| {
        check(|contract| {
            let methods = contract.paths.get_mut("/vm.info").unwrap();
            let endpoint = methods.values_mut().next().unwrap();
            let mut response = endpoint.responses.remove(&200).unwrap();
            if changed {
                response
                    .content
                    .insert("application/json".to_owned(), Schema::new(Shape::Boolean));
            }
            endpoint.fallbacks.insert("2XX".to_owned(), response);
        })
    };
    assert_eq!(with(false).used, []);
    let used = with(true).used;
    assert!(
        used.iter().any(|finding| finding.level == Level::Breaking),
        "{used:?}"
    );
}

#[test]
fn fields_that_this_crate_sends_are_told_from_those_it_only_offers() {
    let sent = check(|contract| {
        properties(contract, "DiskConfig")
            .remove("image_type")
            .unwrap();
    });
    assert!(
        sent.used
            .iter()
            .any(|finding| finding.level == Level::Breaking
                && finding.path == "/components/schemas/DiskConfig/properties/image_type"
                && finding.message.contains("this crate sends it")),
        "{:?}",
        sent.used
    );
    // No sandbox of this crate has a balloon.
    let offered = check(|contract| {
        properties(contract, "BalloonConfig")
            .remove("free_page_reporting")
            .unwrap();
    });
    assert_ne!(offered.report.findings, []);
    assert_eq!(offered.used, []);
}

#[test]
fn a_new_required_field_in_a_sent_body_touches_this_crate() {
    let check = check(|contract| {
        let Shape::Object {
            properties,
            required,
        } = &mut contract.schemas.get_mut("VsockConfig").unwrap().shape
        else {
            panic!("VsockConfig is an object");
        };
        properties.insert("flavour".to_owned(), Schema::new(Shape::Boolean));
        required.insert("flavour".to_owned());
    });
    assert!(
        check
            .used
            .iter()
            .any(|finding| finding.path.contains("VsockConfig")),
        "{:?}",
        check.report.findings
    );
}

#[test]
fn a_default_matters_where_this_crate_leaves_the_field_out() {
    let changed = |schema: &str, property: &str| {
        check(|contract| {
            let property = properties(contract, schema).get_mut(property).unwrap();
            property.default = Some(Value::from(true));
        })
    };
    let left_out = changed("CpusConfig", "kvm_hyperv");
    let found = left_out
        .used
        .iter()
        .find(|finding| finding.path == "/components/schemas/CpusConfig/properties/kvm_hyperv");
    assert!(
        found.is_some_and(|finding| finding.message.contains("leaves it to the default")),
        "{:?}",
        left_out.report.findings
    );
    assert_eq!(changed("MemoryConfig", "size").used, []);
    assert_ne!(changed("MemoryConfig", "size").report.findings, []);
}

#[test]
fn a_correction_of_a_fixed_mistake_is_reported_as_stale() {
    let check = check(|contract| {
        let properties = properties(contract, "VmConfig");
        let property = properties.remove("generic-vhost-user").unwrap();
        properties.insert("generic_vhost_user".to_owned(), property);
    });
    assert_eq!(
        paths(&check, "correction-stale"),
        ["/components/schemas/VmConfig/properties/generic_vhost_user"]
    );
    let finding = &check.report.findings[0];
    assert_eq!(finding.level, Level::Warning);
    assert!(
        finding
            .message
            .contains("upstream has corrected its document"),
        "{}",
        finding.message
    );
    assert!(finding.affects.contains("vm.create"));
}

#[test]
fn the_cassettes_of_a_changed_call_are_named() {
    let check = check(|contract| {
        contract.paths.remove("/vm.resize-disk").unwrap();
    });
    assert_eq!(
        paths(&check, "cassette-touched"),
        ["/paths/~1vm.resize-disk"]
    );
    let done = render(&check);
    assert!(done.contains("hot-plug"), "{done}");
}

fn render(check: &Check) -> String {
    compat::render::markdown(&check.page())
}

#[test]
fn a_correction_that_no_longer_applies_does_not_stop_the_others() {
    // Whatever is taken out of the document, nothing panics, and every reference in the outcome leads to a schema.
    let names: Vec<String> = supported::documented(supported::newest())
        .unwrap()
        .schemas
        .into_keys()
        .collect();
    for name in names {
        let check = check(|contract| {
            contract.schemas.get_mut(&name).unwrap().shape = Shape::Boolean;
        });
        assert_ne!(check.report.findings, [], "{name}");
    }
}

#[test]
fn a_field_that_an_older_release_lacks_and_no_sandbox_needs_is_not_called_used() {
    // A sandbox runs on v52.0, as the live tests show.
    let name = "v52.0.json".to_owned();
    let contract = supported::documented("v52.0".parse().unwrap()).unwrap();
    let check = compat::check(Document {
        name,
        contract,
        corrected: false,
    });
    assert_ne!(check.report.findings, []);
    assert_eq!(check.used, []);
    assert!(
        check
            .page()
            .headline
            .contains("runs a sandbox, but other calls"),
        "{}",
        check.page().headline
    );
}

#[test]
fn a_value_that_is_sent_is_told_from_its_neighbours() {
    let without = |value: &str| {
        check(|contract| {
            let Shape::String { values, .. } =
                &mut contract.schemas.get_mut("ImageType").unwrap().shape
            else {
                panic!("ImageType is a text");
            };
            assert!(values.remove(value));
        })
    };
    assert_ne!(without("Raw").used, []);
    assert_eq!(without("Vhdx").used, []);
    assert_ne!(without("Vhdx").report.findings, []);
}

#[test]
fn the_commands_forms_agree() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("next.json");
    let text_of = fs::read_to_string(contract("v53.0")).unwrap();
    let next = text_of.replace("\"version\": \"v53.0\"", "\"version\": \"0.3.0\"");
    assert_ne!(next, text_of);
    fs::write(&path, next.replace("\"/vm.resume\"", "\"/vm.continue\"")).unwrap();
    let run = |path: &Path, format: &str| {
        let done = run([
            "check".as_ref(),
            path.as_os_str(),
            "--format".as_ref(),
            format.as_ref(),
        ]);
        assert_eq!(
            done.status.code(),
            Some(1),
            "{format}: {}",
            text(&done.stderr)
        );
        String::from_utf8(done.stdout).unwrap()
    };
    let report: Value = serde_json::from_str(&run(&path, "json")).unwrap();
    assert_eq!(report["base"], "v53.0");
    assert_eq!(report["revision"], path.to_str().unwrap());
    let shown = run(&path, "text");
    assert!(shown.contains("What this crate uses"), "{shown}");
    assert!(run(&path, "markdown").starts_with("**Breaking.**"));
}
