//! `chv-sandbox redteam`, run as a program on a host without KVM.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use chv_sandbox::redteam::{RedteamReport, probes};
use tempfile::TempDir;

use crate::cli::run;

#[test]
fn on_the_stub_every_probe_is_skipped_which_is_2() {
    let folder = TempDir::with_prefix("redteam-").unwrap();
    let json = folder.path().join("report.json");
    let (status, printed, said) = run(["redteam", "--stub", "--json", json.to_str().unwrap()]);
    assert_eq!((status, said.as_str()), (Some(2), ""), "{printed}");
    let count = probes().count();
    let last = printed.lines().last().unwrap();
    assert_eq!(last, format!("0 passed, 0 failed, {count} skipped"));
    for probe in probes() {
        assert!(printed.contains(probe.name), "{printed}");
    }
    let report = RedteamReport::from_json(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(report.sandbox.as_deref(), Some("stub"));
    assert_eq!(
        report.command_line[..3],
        ["chv-sandbox", "redteam", "--stub"]
    );
    assert_eq!(report.probes.len(), count);
    let mode = fs::metadata(&json).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_report_goes_to_standard_output_in_the_tables_place() {
    let arguments = [
        "redteam",
        "--stub",
        "--json",
        "-",
        "--only",
        "host,every_reset",
    ];
    let (status, printed, _) = run(arguments);
    assert_eq!(status, Some(2));
    let report = RedteamReport::from_json(printed.as_bytes()).unwrap();
    let names: Vec<&str> = report.probes.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "host_files",
            "host_devices",
            "process_escape",
            "every_reset"
        ]
    );
}

#[test]
fn wrong_arguments_and_missing_files_are_refused() {
    let (status, _, said) = run(["redteam", "--stub", "--only", "nonsense"]);
    assert_eq!(status, Some(64), "{said}");
    assert!(
        said.contains("neither a probe nor a family \"nonsense\""),
        "{said}"
    );
    let (status, _, said) = run(["redteam", "--stub", "--only", "host", "--without", "host"]);
    assert_eq!(status, Some(64), "{said}");
    let (status, _, said) = run(["redteam"]);
    assert_eq!(status, Some(64), "{said}");
    let (status, _, said) = run(["redteam", "--stub", "--dispatches", "1"]);
    assert_eq!(status, Some(64), "{said}");
    let folder = TempDir::with_prefix("redteam-").unwrap();
    let missing = folder.path().join("missing");
    let (status, _, said) = run(["redteam", "--golden", missing.to_str().unwrap()]);
    assert_eq!(status, Some(2), "{said}");
    let json = missing.join("report.json");
    let (status, _, said) = run(["redteam", "--stub", "--json", json.to_str().unwrap()]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("cannot write"), "{said}");
}
