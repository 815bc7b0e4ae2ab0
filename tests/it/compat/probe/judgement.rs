//! The recordings of each release, judged by each contract.

use std::collections::BTreeSet;

use chv_sandbox::compat::probe::{Observed, judge, recorded};
use chv_sandbox::compat::{Finding, Level, Report, Verdict};
use chv_sandbox::replay::{Answer, ResponseBody};
use chv_sandbox::spec::{Release, supported};
use serde_json::{Value, json};

use super::recordings;

fn release(tag: &str) -> Release {
    tag.parse().unwrap()
}

fn judged(observed: &Observed, base: Release) -> Vec<Finding> {
    let contract = supported::contract(base).unwrap();
    judge(observed, &contract, recorded::outline(base).as_ref())
}

fn recorded_as(release: Release) -> Observed {
    Observed {
        recordings: recordings(release),
        ..Observed::default()
    }
}

#[test]
fn each_recorded_release_is_compatible_with_its_own_contract() {
    for release in recorded::releases() {
        let findings = judged(&recorded_as(release), release);
        let breaking: Vec<_> = findings
            .iter()
            .filter(|finding| finding.level != Level::Info)
            .map(|finding| (finding.id, &finding.path, &finding.message))
            .collect();
        assert!(breaking.is_empty(), "{release}: {breaking:#?}");
    }
}

/// The default builds of these two releases give the same answers and read the same fields.
const ALIKE: [&str; 2] = ["v44.0", "v46.0"];

#[test]
fn each_recorded_release_differs_from_its_neighbours() {
    let recordings: Vec<_> = recorded::releases()
        .map(|release| (release, recorded_as(release)))
        .collect();
    for pair in recordings.windows(2) {
        let names: Vec<_> = pair
            .iter()
            .map(|(release, _)| release.to_string())
            .collect();
        for (base, own) in pair {
            let contract = supported::contract(*base).unwrap();
            let outline = recorded::outline(*base);
            let keys = |observed| keys(&judge(observed, &contract, outline.as_ref()));
            let own = keys(own);
            let is_other = |(release, _): &&(Release, Observed)| release != base;
            let (_, other) = pair.iter().find(is_other).unwrap();
            let alike = keys(other).difference(&own).next().is_none();
            assert_eq!(alike, names == ALIKE, "{names:?}, held against {base}");
        }
    }
}

fn keys(findings: &[Finding]) -> BTreeSet<(&'static str, String)> {
    findings
        .iter()
        .map(|finding| (finding.id, finding.path.clone()))
        .collect()
}

/// The findings of `observed` by the contract of `base`, without those that the recorded release also has by its own
/// contract.
fn news(observed: &Observed, base: Release) -> Vec<Finding> {
    let known = keys(&judged(&recorded_as(base), base));
    let mut findings = judged(observed, base);
    findings.retain(|finding| !known.contains(&(finding.id, finding.path.clone())));
    findings
}

#[test]
fn known_history_is_found() {
    #[track_caller]
    fn check(seen: &str, base: &str, id: &str, path: &str) {
        let findings = judged(&recorded_as(release(seen)), release(base));
        assert!(
            findings
                .iter()
                .any(|finding| finding.id == id && finding.path == path),
            "{seen} against {base}: no {id} at {path} in {:#?}",
            findings
                .iter()
                .map(|finding| (finding.id, &finding.path))
                .collect::<Vec<_>>()
        );
    }
    // Additions of a release are missing on the release before it.
    check(
        "v51.2",
        "v52.0",
        "observed-route-missing",
        "/paths/~1vm.add-generic-vhost-user",
    );
    check(
        "v48.0",
        "v50.2",
        "observed-route-missing",
        "/paths/~1vm.resize-disk",
    );
    // Additions of a release are beyond the contract of the release before it.
    check(
        "v52.0",
        "v51.2",
        "observed-route-added",
        "/paths/~1vm.add-generic-vhost-user",
    );
    // v53.0 refuses to pause a VM that is paused.
    check(
        "v53.0",
        "v52.0",
        "observed-refused",
        "/paths/~1vm.pause/put/responses/500",
    );
    check(
        "v52.0",
        "v53.0",
        "observed-accepted",
        "/paths/~1vm.pause/put/responses/204",
    );
    // Up to v52.0 a send-migration without a VM ends the VMM.
    check(
        "v52.0",
        "v53.0",
        "observed-vmm-gone",
        "/paths/~1vm.send-migration/put/responses/500",
    );
    // Up to v46.0 errors are plain text.
    check(
        "v46.0",
        "v48.0",
        "observed-error-shape",
        "/paths/~1vm.boot/put/responses/500",
    );
    // Since v53.0 a call that needs a VM answers 404 where there is none.
    check(
        "v53.0",
        "v52.0",
        "observed-status-changed",
        "/paths/~1vm.boot/put/responses/404",
    );
}

/// The answers of v53.0 with one change, which gives exactly one finding.
#[track_caller]
fn mutated(
    scenario: &str,
    path: &str,
    change: impl Fn(&mut Answer),
    expected: &[(&str, Level, &str)],
) {
    let base = release("v53.0");
    let mut observed = recorded_as(base);
    let recording = observed
        .recordings
        .iter_mut()
        .find(|recording| recording.scenario == scenario)
        .unwrap();
    let exchanges = recording.cassette.exchanges.iter_mut();
    for exchange in exchanges.filter(|exchange| exchange.request.path == format!("/api/v1/{path}"))
    {
        change(&mut exchange.answer);
    }
    let found = news(&observed, base);
    let found: Vec<_> = found
        .iter()
        .map(|finding| (finding.id, finding.level, finding.path.as_str()))
        .collect();
    assert_eq!(found, expected, "{scenario}, {path}");
}

fn in_body(change: impl Fn(&mut Value)) -> impl Fn(&mut Answer) {
    move |answer| {
        if let Answer::Response(response) = answer
            && let ResponseBody::Json(body) = &mut response.body
            && body.is_object()
        {
            change(body);
        }
    }
}

#[test]
fn one_change_gives_the_findings_that_it_should() {
    use Level::{Breaking, Info, Warning};
    let state = "/components/schemas/VmInfo/properties/state";
    mutated(
        "life-cycle",
        "vm.info",
        in_body(|info| drop(info.as_object_mut().unwrap().remove("state"))),
        &[
            ("observed-field-missing", Breaking, state),
            ("observed-required-missing", Breaking, state),
        ],
    );
    mutated(
        "life-cycle",
        "vm.info",
        in_body(|info| info["state"] = json!("Asleep")),
        &[(
            "observed-enum-value",
            Warning,
            "/components/schemas/VmState",
        )],
    );
    mutated(
        "life-cycle",
        "vm.info",
        in_body(|info| info["config"]["cpus"]["boot_vcpus"] = json!("1")),
        &[
            (
                "observed-field-type",
                Breaking,
                "/components/schemas/CpusConfig/properties/boot_vcpus",
            ),
            (
                "observed-type",
                Breaking,
                "/components/schemas/CpusConfig/properties/boot_vcpus",
            ),
        ],
    );
    mutated(
        "life-cycle",
        "vm.info",
        in_body(|info| info["config"]["new"] = json!(1)),
        &[(
            "observed-field-undocumented",
            Info,
            "/components/schemas/VmConfig/properties/new",
        )],
    );
    let status = |status| {
        move |answer: &mut Answer| {
            if let Answer::Response(response) = answer {
                response.status = status;
            }
        }
    };
    mutated(
        "life-cycle",
        "vm.pause",
        status(200),
        &[
            (
                "observed-status-changed",
                Info,
                "/paths/~1vm.pause/put/responses/200",
            ),
            (
                "observed-success-status",
                Breaking,
                "/paths/~1vm.pause/put/responses/200",
            ),
        ],
    );
    mutated(
        "life-cycle",
        "vm.pause",
        |answer| *answer = Answer::Closed,
        &[(
            "observed-vmm-gone",
            Breaking,
            "/paths/~1vm.pause/put/responses/204",
        )],
    );
    mutated(
        "limits",
        "vm.create",
        status(204),
        &[
            (
                "observed-body-added",
                Info,
                "/paths/~1vm.create/put/responses/204",
            ),
            (
                "observed-limit-higher",
                Info,
                "/paths/~1vm.create/put/requestBody",
            ),
        ],
    );
}

#[test]
fn a_report_of_a_probe_has_its_verdict() {
    let base = release("v53.0");
    let report = |observed: Release| {
        let findings = judged(&recorded_as(observed), base);
        Report::new(base.to_string(), format!("{observed} (observed)"), findings)
    };
    assert_eq!(report(base).verdict, Verdict::Compatible);
    assert_eq!(report(release("v52.0")).verdict, Verdict::Breaking);
}
