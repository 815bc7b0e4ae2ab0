//! `chv-sandbox record` keeps the exchanges that it recorded, however the recording ends.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use chv_sandbox::replay::Cassette;
use rustix::process::Signal;

use super::place::{Place, names, serve, signal, wait_for_line};
use super::signals::ENDS;

/// Starts `record`, and waits until it listens.
fn recording(place: &Place, out: &str) -> (Child, impl BufRead) {
    let arguments = [
        "record", "--socket", "vmm.sock", "--listen", "listen", "--out", out,
    ];
    let mut child = place.command(&arguments).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    wait_for_line(&mut stderr, "recording v53.0 on listen");
    (child, stderr)
}

fn ping(place: &Place) {
    let asked = place
        .command(&["api", "--socket", "listen", "vmm.ping"])
        .output()
        .unwrap();
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
}

#[track_caller]
fn check_cassette(text: &str) {
    let cassette: Cassette = text.parse().unwrap();
    assert_eq!(cassette.exchanges.len(), 1);
}

#[test]
fn a_recording_is_kept() {
    let place = Place::new();
    serve(&place.path("vmm.sock"));
    for (number, _) in ENDS {
        let (mut child, _stderr) = recording(&place, "cassette.json");
        ping(&place);
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        check_cassette(&fs::read_to_string(place.path("cassette.json")).unwrap());
        assert!(!place.path("listen").exists());
    }
}

#[test]
fn a_recording_that_cannot_be_written_at_the_end_is_kept_elsewhere() {
    let place = Place::new();
    serve(&place.path("vmm.sock"));
    let end_without_its_directory = || {
        fs::create_dir(place.path("gone")).unwrap();
        let (child, mut stderr) = recording(&place, "gone/cassette.json");
        ping(&place);
        fs::remove_dir(place.path("gone")).unwrap();
        signal(&child, Signal::INT);
        let output = child.wait_with_output().unwrap();
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        (String::from_utf8(output.stdout).unwrap(), said)
    };
    let (printed, said) = end_without_its_directory();
    assert_eq!(printed, "");
    let [kept] = &names(&place.path("tmp"))[..] else {
        panic!("{said}");
    };
    let kept = place.path("tmp").join(kept);
    assert!(said.contains(kept.to_str().unwrap()), "{said}");
    assert!(said.contains("gone/cassette.json"), "{said}");
    check_cassette(&fs::read_to_string(kept).unwrap());

    fs::remove_dir_all(place.path("tmp")).unwrap();
    let (printed, said) = end_without_its_directory();
    assert!(said.contains("on standard output"), "{said}");
    check_cassette(&printed);
}

#[test]
fn a_recording_is_kept_up_to_what_cannot_be_recorded() {
    let place = Place::new();
    serve(&place.path("vmm.sock"));
    let (child, mut stderr) = recording(&place, "cassette.json");
    ping(&place);
    // A body that would be read as a placeholder when the cassette is played.
    fs::write(place.path("body"), "${RUN}").unwrap();
    let arguments = [
        "api",
        "--socket",
        "listen",
        "vmm.ping",
        "--unchecked",
        "--body",
        "body",
    ];
    let asked = place.command(&arguments).output().unwrap();
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    ping(&place);
    signal(&child, Signal::INT);
    let status = child.wait_with_output().unwrap().status;
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("ends after 1 exchanges"), "{said}");
    assert!(said.contains("step 2 (GET /api/v1/vmm.ping)"), "{said}");
    check_cassette(&fs::read_to_string(place.path("cassette.json")).unwrap());
}

#[test]
fn a_second_signal_ends_at_once() {
    let place = Place::new();
    let asked = serve(&place.path("vmm.sock"));
    for (number, status) in ENDS {
        let (mut child, mut stderr) = recording(&place, "cassette.json");
        // The VMM never answers this call, and the end of the recording waits for the answer.
        let mut asking = place.command(&["api", "--socket", "listen", "vm.boot"]);
        let mut asking = asking.stderr(Stdio::null()).spawn().unwrap();
        assert!(asked.iter().any(|line| line.contains("/vm.boot ")));
        signal(&child, number);
        wait_for_line(&mut stderr, "waiting for the answer");
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(status));
        asking.wait().unwrap();
        fs::remove_file(place.path("listen")).unwrap();
    }
}
