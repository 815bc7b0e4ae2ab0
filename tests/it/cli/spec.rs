//! `chv-sandbox spec`, run as a program inside a checkout and outside one.

use std::path::Path;
use std::process::{Command, Output};

use chv_sandbox::spec::supported;

use crate::spec::corrections::api_spec;

/// Runs `chv-sandbox spec` in the directory `here`.
fn run(here: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chv-sandbox"))
        .arg("spec")
        .args(arguments)
        .current_dir(here)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_contract_is_shown_wherever_the_command_is_run() {
    let newest = supported::newest();
    let expected = supported::contract(newest).unwrap().canonical();
    let elsewhere = tempfile::tempdir().unwrap();
    let checkout = api_spec();
    let release = newest.to_string();
    let folder = checkout.to_str().unwrap();
    for (here, arguments) in [
        (elsewhere.path(), &["show", &release][..]),
        (elsewhere.path(), &["show", &release, "--from", folder]),
        (checkout.parent().unwrap(), &["show", &release]),
    ] {
        let done = run(here, arguments);
        assert!(done.status.success(), "{arguments:?}: {}", said(&done));
        assert_eq!(
            String::from_utf8(done.stdout).unwrap(),
            expected,
            "{arguments:?}"
        );
    }
}

#[test]
fn an_unknown_release_is_refused_with_the_list_of_known_ones() {
    let elsewhere = tempfile::tempdir().unwrap();
    let checkout = api_spec();
    for here in [elsewhere.path(), checkout.parent().unwrap()] {
        let done = run(here, &["show", "v99.0"]);
        assert!(!done.status.success());
        let said = said(&done);
        assert!(
            said.contains("v99.0") && said.contains("v52.0, v53.0"),
            "{said}"
        );
    }
}

#[test]
fn a_check_outside_a_checkout_says_what_to_do() {
    let elsewhere = tempfile::tempdir().unwrap();
    for arguments in [&["check"][..], &["show", "v53.0", "--from", "nowhere"]] {
        let done = run(elsewhere.path(), arguments);
        assert!(!done.status.success());
        let said = said(&done);
        assert!(
            said.contains("in a checkout") && said.contains("--from"),
            "{said}"
        );
    }
}
