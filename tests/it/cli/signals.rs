//! SIGINT and SIGTERM end every long command with 130 or 143, and leave nothing of its work.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use super::command;
use super::place::{Place, serve, signal, wait_for_line};

/// Each signal with the exit status that it leads to.
pub(crate) const ENDS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

#[test]
fn a_command_whose_vmm_is_starting() {
    let commands: &[&[&str]] = &[
        &[
            "golden", "mint", "--vmm", "./vmm", "--image", "image", "--out", "golden",
        ],
        &["demo", "--vmm", "./vmm", "--image", "image"],
        &[
            "demo",
            "--vmm",
            "./vmm",
            "--image",
            "image",
            "--directory",
            "demo",
        ],
        &["compat", "probe", "--vmm", "./vmm"],
    ];
    let place = Place::new();
    for arguments in commands {
        for (number, status) in ENDS {
            // Twice with the same paths: nothing that the first run left may stop the second.
            let child = place.command(arguments).spawn().unwrap();
            place.wait_until_the_vmm_runs();
            signal(&child, number);
            place.check_ended(child, status);
        }
    }
}

#[test]
fn an_image_whose_disks_are_being_made() {
    let place = Place::new();
    let arguments = &[
        "image",
        "--kernel",
        "vmlinux",
        "--busybox",
        "vmlinux",
        "--guest",
        "guest",
        "--out",
        "packed",
    ];
    for (number, status) in ENDS {
        let child = place.command(arguments).spawn().unwrap();
        place.wait_until_it_runs();
        signal(&child, number);
        place.check_ended(child, status);
    }
}

/// Checks a command that reads for a quarter of an hour and writes nothing: it ends as soon as a signal comes.
#[track_caller]
pub(crate) fn check_reader<A: AsRef<OsStr>>(arguments: &[A]) {
    for (number, status) in ENDS {
        let mut child = command(arguments)
            .env("RUST_LOG", "chv_sandbox::cli=debug")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        wait_for_line(&mut stderr, "SIGINT and SIGTERM are caught");
        signal(&child, number);
        let output = child.wait_with_output().unwrap();
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(output.stdout.is_empty());
        assert!(
            said.contains("interrupted") || said.contains("terminated"),
            "{said}"
        );
    }
}

/// A hole costs no disk space, and its SHA-256 takes a quarter of an hour.
pub(crate) fn make_long(path: &Path) {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.set_len(1 << 40).unwrap();
}

#[test]
fn a_digest_that_takes_long() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    make_long(&disk);
    check_reader(&[OsStr::new("hash"), disk.as_os_str()]);
}

#[test]
fn the_demo_on_a_recording() {
    let place = Place::new();
    for (number, status) in ENDS {
        let mut child = place.command(&["demo"]).spawn().unwrap();
        // The first lines are printed before anything is minted.
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        wait_for_line(&mut stdout, "chv-sandbox demo");
        signal(&child, number);
        place.check_ended(child, status);
    }
}

#[test]
fn a_call_that_is_not_answered() {
    let place = Place::new();
    let asked = serve(&place.path("vmm.sock"));
    for (number, status) in ENDS {
        let arguments = ["api", "--socket", "vmm.sock", "vm.boot"];
        let child = place.command(&arguments).spawn().unwrap();
        assert!(asked.iter().any(|line| line.contains("/vm.boot ")));
        signal(&child, number);
        assert_eq!(
            child.wait_with_output().unwrap().status.code(),
            Some(status)
        );
    }
}
