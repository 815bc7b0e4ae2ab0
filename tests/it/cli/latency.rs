//! `chv-sandbox latency`, run as a program on a host without KVM.

use std::fs;
use std::io::{BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use chv_sandbox::latency::{CaseState, LatencyReport, page};
use tempfile::TempDir;

use crate::cli::place::{signal, wait_for_line};
use crate::cli::signals::ENDS;
use crate::cli::{check_output, command, run};
use crate::latency::EXAMPLE;

/// A folder for the files that a command writes.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(TempDir::with_prefix("latency-").unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn report(&self) -> LatencyReport {
        LatencyReport::from_json(&fs::read(self.path("report.json")).unwrap()).unwrap()
    }

    /// Measures on recordings, and writes the report and the page.
    fn replay(&self, further: &[&str]) -> (Option<i32>, String, String) {
        let (json, html) = (self.path("report.json"), self.path("page.html"));
        let arguments = [
            "latency",
            "--replay",
            "--warm-up",
            "1",
            "--patience",
            "10",
            "--json",
            &json,
            "--html",
            &html,
        ];
        run([&arguments[..], further].concat())
    }

    #[track_caller]
    fn check_names(&self, expected: &[&str]) {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, expected);
    }
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn twenty_iterations_on_recordings() {
    let place = Place::new();
    let (status, printed, said) = place.replay(&["--iterations", "20", "--at-once", "1,2"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(
        printed.starts_with("chv-sandbox latency: replay; "),
        "{printed}"
    );
    for piece in [
        "in_place, 1 at once: 20 iterations",
        "in_place, 2 at once",
        "p99.9",
        "reset",
        "acquire is not measured",
    ] {
        assert!(printed.contains(piece), "{piece}: {printed}");
    }
    let report = place.report();
    assert!(report.is_complete());
    assert_eq!(
        report
            .cases
            .iter()
            .map(|case| case.iterations)
            .collect::<Vec<_>>(),
        [20, 20]
    );
    assert_eq!(
        report.command_line[..3],
        ["chv-sandbox", "latency", "--replay"]
    );
    assert!(report.vmm.release.as_ref().unwrap().starts_with('v'));
    assert_eq!(
        fs::read_to_string(place.path("page.html")).unwrap(),
        page(&report)
    );
    place.check_names(&["page.html", "report.json"]);
    assert_eq!(
        (
            mode(place.path("page.html")),
            mode(place.path("report.json"))
        ),
        (0o600, 0o600)
    );
}

#[test]
fn an_iteration_that_fails_ends_its_case() {
    let place = Place::new();
    let (status, printed, said) = place.replay(&["--iterations", "9", "--diverge-at", "5"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        printed.contains("failed at reset: ") && printed.contains("SANDBOX_RESET_DIVERGENCE"),
        "{printed}"
    );
    let report = place.report();
    assert!(matches!(report.cases[0].state, CaseState::Failed { .. }));
    assert_eq!(report.cases[0].iterations, 4);
    place.check_names(&["page.html", "report.json"]);
}

#[test]
fn a_case_that_cannot_begin_is_no_pass() {
    let place = Place::new();
    let (status, printed, said) = place.replay(&[
        "--iterations",
        "1",
        "--strategy",
        "in_place,fresh",
        "--spares",
        "0",
    ]);
    assert_eq!(status, Some(2), "{said}");
    assert!(printed.contains("skipped at open: "), "{printed}");
    let missing = place.path("golden");
    let (status, printed, _) = run(["latency", "--golden", &missing, "--vmm", &missing]);
    assert_eq!(status, Some(2), "{printed}");
    assert_eq!(printed.matches("skipped at open: ").count(), 3, "{printed}");
    assert!(!printed.contains("latency: hardware") || Path::new("/dev/kvm").exists());
}

#[test]
fn a_page_is_made_of_a_report() {
    let place = Place::new();
    let (json, html) = (place.path("report.json"), place.path("page.html"));
    fs::write(&json, EXAMPLE).unwrap();
    // An existing page is replaced.
    fs::write(&html, "old").unwrap();
    let (status, printed, said) = run(["latency", "--page-of", &json, "--html", &html]);
    assert_eq!((status, printed.as_str()), (Some(0), ""), "{said}");
    assert_eq!(fs::read_to_string(&html).unwrap(), page(&place.report()));
    place.check_names(&["page.html", "report.json"]);

    fs::write(
        &json,
        EXAMPLE.replace("\"schema_version\": 1", "\"schema_version\": 7"),
    )
    .unwrap();
    let (status, _, said) = run(["latency", "--page-of", &json, "--html", &html]);
    assert_eq!(status, Some(2));
    assert!(said.contains("schema_version 7"), "{said}");
    fs::write(&json, "\u{1b}[2J").unwrap();
    let (status, _, said) = run(["latency", "--page-of", &json, "--html", &html]);
    assert_eq!(status, Some(2));
    assert!(
        said.contains("not a report of latencies") && !said.contains('\u{1b}'),
        "{said}"
    );
    // The existing page is unchanged.
    assert_eq!(mode(&html), 0o600);
    place.check_names(&["page.html", "report.json"]);
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_anything_is_measured() {
    let place = Place::new();
    let missing = place.path("missing/report.json");
    let folder = place.path("");
    for file in [&missing, &folder] {
        // This number of iterations would take an hour.
        let arguments = [
            "latency",
            "--replay",
            "--iterations",
            "1000000",
            "--json",
            file,
        ];
        let (status, printed, said) = run(arguments);
        assert_eq!((status, printed.as_str()), (Some(2), ""));
        assert!(said.contains("cannot write"), "{said}");
    }
    place.check_names(&[]);
}

#[test]
fn arguments_without_a_meaning_are_wrong_usage() {
    for arguments in [
        &["latency"][..],
        &["latency", "--replay", "--golden", "golden"],
        &["latency", "--replay", "--strategy", "cold"],
        &["latency", "--replay", "--iterations", "0"],
        &["latency", "--replay", "--at-once", "0"],
        &["latency", "--replay", "--at-once", "257"],
        &["latency", "--replay", "--spares", "65"],
        &[
            "latency",
            "--replay",
            "--iterations",
            "3",
            "--diverge-at",
            "4",
        ],
        &["latency", "--golden", "golden", "--diverge-at", "1"],
        &[
            "latency",
            "--golden",
            "golden",
            "--require",
            "landlock",
            "--unconfined",
        ],
        &["latency", "--page-of", "report.json"],
        &[
            "latency",
            "--page-of",
            "report.json",
            "--html",
            "page.html",
            "--json",
            "other.json",
        ],
    ] {
        let (status, _, said) = run(arguments);
        assert_eq!(status, Some(64), "{arguments:?}: {said}");
    }
}

#[test]
fn a_signal_ends_it_with_what_was_measured() {
    for (number, status) in ENDS {
        let place = Place::new();
        let (json, html) = (place.path("report.json"), place.path("page.html"));
        let arguments = [
            "latency",
            "--replay",
            "--iterations",
            "5000",
            "--json",
            &json,
            "--html",
            &html,
        ];
        let mut child = command(arguments)
            .env("RUST_LOG", "chv_sandbox::machine=debug")
            .env("TMPDIR", place.0.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        // A line about a step of a reset shows that iterations are under way.
        wait_for_line(&mut stderr, "digest");
        signal(&child, number);
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{said}");
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(
            printed.contains("interrupted: the figures are incomplete"),
            "{printed}"
        );
        let report = place.report();
        assert!(report.interrupted);
        assert_eq!(report.cases[0].state, CaseState::Interrupted);
        assert!(
            fs::read_to_string(html)
                .unwrap()
                .contains("It was interrupted")
        );
        // The temporary folder of the recordings is removed too.
        place.check_names(&["page.html", "report.json"]);
    }
}

#[test]
fn a_table_that_cannot_be_written_ends_with_2() {
    check_output(
        &["latency", "--replay", "--iterations", "1", "--warm-up", "0"],
        0,
    );
}
