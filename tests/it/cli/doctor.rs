//! `chv-sandbox doctor`, and the errors of other commands that point to it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use chv_sandbox::doctor::{CheckId, CheckStatus, HostReport, Layer, Readiness};

use super::place::Place;
use super::{check_output, run};

/// The report of this call is "not ready" on every host.
const WITHOUT_VMM: [&str; 3] = ["doctor", "--vmm", "/nowhere/vmm"];

fn examine(arguments: &[&str]) -> HostReport {
    let (status, printed, said) = run([&WITHOUT_VMM, arguments, &["--json"]].concat());
    assert_eq!((status, said.as_str()), (Some(1), ""), "{printed}");
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn a_host_without_a_vmm_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let report = examine(&["--run-root", root.to_str().unwrap()]);
    assert_eq!((report.format, report.readiness), (1, Readiness::NotReady));
    let vmm = report.check(CheckId::Vmm).unwrap();
    assert_eq!(vmm.status, CheckStatus::Missing);
    assert!(vmm.found.contains("/nowhere/vmm"), "{vmm:?}");
    assert!(vmm.lost.is_some() && vmm.remedy.is_some(), "{vmm:?}");
    assert_eq!(report.check(CheckId::Golden), None);
    let run_root = report.check(CheckId::RunRoot).unwrap();
    assert_eq!(run_root.status, CheckStatus::Good, "{run_root:?}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_golden_snapshot_that_was_named_is_examined() {
    let report = examine(&["--golden", "/nowhere/golden"]);
    let golden = report.check(CheckId::Golden).unwrap();
    assert_eq!(golden.status, CheckStatus::Missing);
    assert!(golden.found.contains("/nowhere/golden"), "{golden:?}");
}

#[test]
fn a_layer_that_is_required_is_no_warning() {
    for layer in Layer::ALL {
        let report = examine(&["--require", layer.name()]);
        let check = report.check(CheckId::Layer(layer)).unwrap();
        assert_ne!(check.status, CheckStatus::Warning, "{check:?}");
    }
    let (status, _, said) = run(["doctor", "--require", "landlock,seccomp"]);
    assert_eq!(status, Some(64), "{said}");
    assert!(
        said.contains("seccomp") && said.contains("namespaces"),
        "{said}"
    );
}

#[test]
fn the_report_for_people_fits_on_a_screen() {
    let (status, printed, said) = run(WITHOUT_VMM);
    assert_eq!((status, said.as_str()), (Some(1), ""));
    assert!(
        printed.starts_with("chv-sandbox doctor: not ready; "),
        "{printed}"
    );
    assert!(printed.lines().count() <= 40, "{printed}");
    assert!(printed.contains("\nMISSING vmm "), "{printed}");
    check_output(&WITHOUT_VMM, 1);
}

/// Runs a mint and a demo with these arguments. Both must fail, and name each of `words`.
#[track_caller]
fn check_failure(place: &Place, arguments: &[&str], words: &[&str]) {
    for command in [
        &["golden", "mint", "--image", "image", "--out", "golden"][..],
        &["demo", "--image", "image"],
    ] {
        let arguments = [command, arguments].concat();
        let Output { status, stderr, .. } = place.command(&arguments).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(2), "{arguments:?}: {said}");
        for words in words {
            assert!(
                said.contains(words),
                "{arguments:?}: no {words:?} in {said}"
            );
        }
        assert!(!said.contains("backtrace"), "{arguments:?}: {said}");
        assert_eq!(place.left(), [""; 0], "{said}");
    }
}

#[test]
fn a_mint_and_a_demo_that_lack_something_name_it_and_doctor() {
    let place = Place::new();
    let doctor = "`chv-sandbox doctor`";
    check_failure(
        &place,
        &["--vmm", "/nowhere/vmm"],
        &["/nowhere/vmm", "install cloud-hypervisor", doctor, "(vmm)"],
    );
    check_failure(
        &place,
        &["--vmm", "./vmlinux"],
        &["chmod +x", doctor, "(vmm)"],
    );
    let open = place.path("run");
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let open = open.to_str().unwrap();
    check_failure(
        &place,
        &["--vmm", "./vmm", "--run-root", open],
        &[&format!("chmod 700 {open}"), doctor, "(run_root)"],
    );
}

#[test]
fn the_backtrace_of_a_vmm_that_dies_is_not_shown() {
    let place = Place::new();
    let words = "Fatal error: no hypervisor\n\nStack backtrace:\n   0: <unknown>\n             at ./main.c:1:2\n   1: main\n\
                 Error: chain of errors:\n  0: no hypervisor\n";
    let script = format!("#!/bin/sh\ncat >&2 <<'END'\n{words}END\nexit 1\n");
    // Another process writes the file. If this process did, a child that another test forks could inherit the open
    // descriptor, and the kernel would refuse to run the file.
    let written = std::process::Command::new("sh")
        .args([
            "-c",
            "rm -f vmm && printf '%s' \"$0\" > vmm && chmod 700 vmm",
            &script,
        ])
        .current_dir(place.path(""))
        .status();
    assert!(written.unwrap().success());
    let arguments = [
        "golden", "mint", "--image", "image", "--out", "golden", "--vmm", "./vmm",
    ];
    let output = place.command(&arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains(
            "  | Fatal error: no hypervisor\n  | Error: chain of errors:\n  |   0: no hypervisor"
        ),
        "{said}"
    );
    assert!(
        !said.contains("backtrace") && !said.contains("main.c"),
        "{said}"
    );
}
