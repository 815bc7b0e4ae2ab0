//! Input that can't be compared: the command ends with 2, names the place on standard error, and prints nothing on
//! standard output.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{command, compat, contract, text};

/// Runs `compat check` and `compat diff` on the document at `path`. Both must fail with all of `expected` on standard
/// error.
#[track_caller]
fn check(path: impl AsRef<OsStr>, expected: &[&str]) {
    let path = path.as_ref();
    let commands: [&[&OsStr]; 3] = [
        &["diff".as_ref(), "v53.0".as_ref(), path],
        &["diff".as_ref(), path, "v53.0".as_ref()],
        &["check".as_ref(), path],
    ];
    for arguments in commands {
        let began = Instant::now();
        let done = compat(arguments);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {said}");
        assert_eq!(text(&done.stdout), "", "{arguments:?}");
        assert!(!said.contains('\u{1b}'), "{arguments:?}: {said}");
        for expected in expected {
            assert!(said.contains(expected), "{arguments:?}: {said}");
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{arguments:?}");
    }
}

/// A folder with a document that has this text.
fn document(content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("document.yaml");
    fs::write(&path, content).unwrap();
    (folder, path)
}

#[test]
fn something_that_is_no_document() {
    let check = |content: &[u8], expected: &[&str]| {
        let (_folder, path) = document(content);
        check(&path, &[expected, &["document.yaml"]].concat());
    };
    check(b"a: [1, 2", &["cannot be parsed", "because"]);
    check(b"\xff\xfe\x80", &["cannot be parsed"]);
    check(b"", &["at the root", "expected a mapping"]);
    check(
        b"jobs: { build: {} }",
        &["at the root", "`openapi` is missing"],
    );
    check(b"swagger: '2.0'", &["at the root", "`openapi` is missing"]);
    check(
        b"openapi: 3.0.1\ninfo: {version: x}\n\"\\e[31mkey\": 1\nservers: [{url: x}]\npaths: {}\n",
        &["\\u{1b}[31mkey"],
    );
    check(b"openapi: 3.1.0\ninfo: {version: 1}", &["/openapi"]);
}

#[test]
fn a_document_with_a_broken_part() {
    let good = fs::read_to_string(contract("v53.0")).unwrap();
    let check = |from: &str, to: &str, expected: &[&str]| {
        assert!(good.contains(from), "{from}");
        let (_folder, path) = document(good.replacen(from, to, 1));
        check(&path, expected);
    };
    check(
        "#/components/schemas/ConsoleMode",
        "#/components/schemas/Gone",
        &[
            "schemas/Gone",
            "/components/schemas/ConsoleConfig/properties/mode",
        ],
    );
    check(
        "\"BalloonConfig\": {\n        \"properties\"",
        "\"A\": { \"$ref\": \"#/components/schemas/B\" }, \"B\": { \"$ref\": \"#/components/schemas/A\" },\n\
         \"BalloonConfig\": {\n        \"properties\"",
        &["/components/schemas/A", "A -> B -> A"],
    );
}

#[test]
fn a_path_without_a_usable_document() {
    let folder = tempfile::tempdir().unwrap();
    check(
        folder.path().join("absent.yaml"),
        &["absent.yaml", "No such file"],
    );
    check(folder.path(), &["directory"]);
    check("/dev/zero", &["/dev/zero", "larger than"]);
    check("/dev/null", &["/dev/null", "expected a mapping"]);

    let large = folder.path().join("large.yaml");
    File::create(&large).unwrap().set_len(100 << 20).unwrap();
    check(&large, &["large.yaml", "larger than"]);

    let name = OsString::from_vec(b"not-\xffutf8.yaml".to_vec());
    check(folder.path().join(&name), &["not-", "No such file"]);
    fs::write(folder.path().join(&name), "- a list").unwrap();
    check(folder.path().join(&name), &["not-", "expected a mapping"]);
}

#[test]
fn a_pipe_is_waited_for_with_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    make_pipe(&pipe);
    let began = Instant::now();
    let done = compat([OsStr::new("check"), pipe.as_os_str()]);
    assert_eq!(done.status.code(), Some(2));
    assert!(
        text(&done.stderr).contains("did not close it"),
        "{}",
        text(&done.stderr)
    );
    assert_eq!(text(&done.stdout), "");
    assert!(began.elapsed() < Duration::from_secs(30));

    // As with the shell's `<(git show v53.0:...)`.
    let mut child = command(["diff", "v53.0", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(&fs::read(contract("v53.0")).unwrap())
        .unwrap();
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    assert!(
        matches!(done.status.code(), Some(0 | 1)),
        "{}",
        text(&done.stdout)
    );
}

fn make_pipe(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn a_release_that_is_not_known() {
    for name in ["v12.0", "v99", "53", "53.0", "v53.0.1", "latest"] {
        let commands: [&[&str]; 3] = [
            &["diff", name, "v53.0"],
            &["diff", "v53.0", name],
            &["check", name],
        ];
        for arguments in commands {
            let done = compat(arguments);
            assert_eq!(done.status.code(), Some(2), "{arguments:?}");
            let said = text(&done.stderr);
            assert!(
                said.contains(name) && said.contains("v52.0, v53.0"),
                "{arguments:?}: {said}"
            );
        }
    }
    let said = compat(["check", "next.yaml"]).stderr;
    assert!(
        text(&said).contains("cannot read next.yaml"),
        "{}",
        text(&said)
    );
}

#[test]
fn a_command_line_that_is_not_understood() {
    for arguments in [
        &["diff", "v53.0"][..],
        &["diff", "v52.0", "v53.0", "--format", "yaml"],
        &["check"],
        &["compare"],
        &[],
    ] {
        let done = compat(arguments);
        assert_eq!(done.status.code(), Some(64), "{arguments:?}");
        assert_eq!(text(&done.stdout), "", "{arguments:?}");
    }
}
