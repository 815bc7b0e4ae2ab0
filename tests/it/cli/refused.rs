//! Refused calls and the advice in their errors.

use std::fs;
use std::os::unix::net::UnixListener;

use super::{make_fifo, run};

/// The command ends with `status` and says each of `words` on standard error.
#[track_caller]
fn check(arguments: &[&str], status: i32, words: &[&str]) {
    let (found, printed, said) = run(arguments);
    assert_eq!(found, Some(status), "{arguments:?}: {said}");
    assert_eq!(printed, "", "{arguments:?}");
    for words in words {
        assert!(
            said.contains(words),
            "{arguments:?}: no {words:?} in {said}"
        );
    }
}

#[test]
fn a_warm_tool_that_cannot_be_read() {
    let mint = |line: &str, words: &[&str]| {
        let arguments = [
            "golden",
            "mint",
            "--image",
            "/nowhere",
            "--out",
            "/nowhere/golden",
        ];
        let arguments = [&arguments[..], &["--warm", line]].concat();
        check(&arguments, 64, &[&["--warm"], words].concat());
    };
    mint("sh --param 'script=x", &["not closed"]);
    mint("sh script=x", &["unexpected argument"]);
    mint("", &["required"]);
}

#[test]
fn a_body_that_is_missing_or_not_wanted() {
    // The call is refused before anything is sent: no process listens on this socket.
    let api = |arguments: &[&str], status, words: &[&str]| {
        check(
            &[&["api", "--socket", "/nowhere"], arguments].concat(),
            status,
            words,
        );
    };
    for operation in ["vm.create", "vm.restore", "vm.resize", "vm.add-disk"] {
        api(
            &[operation],
            64,
            &[operation, "needs a body", "--body FILE", "--body -"],
        );
    }
    for operation in ["vm.boot", "vm.info", "vmm.ping"] {
        let arguments = [operation, "--body", "/dev/null"];
        api(&arguments, 64, &[operation, "takes no body", "--unchecked"]);
    }
    api(
        &["vm.create", "--body", "/dev/null"],
        2,
        &["/dev/null is empty", "vm.create"],
    );
    // The body is sent unchanged, so the only error is that the socket is not there.
    let unsent = |arguments: &[&str]| {
        let (status, _, said) =
            run([&["api", "--socket", "/nowhere", "--unchecked"], arguments].concat());
        assert_eq!(status, Some(2), "{said}");
        assert!(
            said.contains("/nowhere") && !said.contains("body"),
            "{said}"
        );
    };
    unsent(&["vm.create"]);
    unsent(&["vm.boot", "--body", "/dev/null"]);
}

#[tokio::test]
async fn a_field_that_the_release_would_ignore() {
    use chv_sandbox::replay::{Player, PlayerOptions};
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    fs::write(&body, r#"{"payload":{"kernel":"k"},"frobnicate":1}"#).unwrap();
    let cassette = r#"{"format":1,"release":"v53.0","exchanges":[
        {"request":{"method":"GET","path":"/api/v1/vmm.ping"},
         "response":{"status":200,"body":{"build_version":"v53.0.0","version":"53.0.0","features":[],"pid":1}}}]}"#;
    let options = PlayerOptions::new(folder.path().join("vmm.sock"));
    let player = Player::start(cassette.parse().unwrap(), options)
        .await
        .unwrap();
    let socket = player.socket().to_str().unwrap().to_owned();
    let body = body.to_str().unwrap().to_owned();
    let asked = move || {
        let arguments = ["api", "--socket", &socket, "vm.create", "--body", &body];
        check(
            &arguments,
            2,
            &[
                "/frobnicate in vm.create",
                "v53.0",
                "`--unchecked` sends it anyway",
            ],
        );
    };
    tokio::task::spawn_blocking(asked).await.unwrap();
    player.finish().await.unwrap();
}

#[test]
fn an_image_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (missing, file, out) = (path("missing"), path("file"), path("out"));
    fs::write(&file, "").unwrap();
    for image in [&missing, &file] {
        let words = [&format!("there is no image at {image}")[..], "because"];
        check(
            &["golden", "mint", "--image", image, "--out", &out],
            2,
            &words,
        );
        check(&["demo", "--image", image], 2, &words);
    }
}

#[test]
fn a_setting_of_an_image_is_named_by_its_flag() {
    let image = |flag: &str, value: &str| {
        let inputs = [
            "image",
            "--kernel",
            "k",
            "--busybox",
            "b",
            "--out",
            "/nowhere/out",
        ];
        check(
            &[&inputs[..], &[flag, value]].concat(),
            64,
            &[&format!("error: {flag} is ")],
        );
    };
    image("--overlay-size", "0");
    image("--overlay-size", "1048577");
    image("--root-size", "3");
    image("--cmdline", "a\nb");
}

#[test]
fn a_setting_that_would_be_ignored() {
    for (flag, value) in [
        ("--memory", "512"),
        ("--vcpus", "1"),
        ("--cid", "4"),
        ("--port", "1025"),
        ("--vmm-env", "A=B"),
        ("--run-root", "/tmp"),
        ("--patience", "2"),
    ] {
        check(&["demo", flag, value], 64, &["--image <DIR>"]);
    }
    for (flag, value) in [("--vmm-env", "A=B"), ("--run-root", "/tmp")] {
        let arguments = ["demo", "--api-socket", "s", "--image", "i", flag, value];
        check(&arguments, 64, &[flag, "--api-socket"]);
    }
}

#[test]
fn a_pipe_in_place_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    make_fifo(&pipe);
    let pipe = pipe.to_str().unwrap();
    let words = &[pipe, "is not a regular file", "copied into one first"];
    check(&["hash", pipe], 2, words);
    check(
        &["golden", "verify", "/nowhere", "--public-key", pipe],
        2,
        words,
    );
    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    check(
        &["image", "--kernel", pipe, "--busybox", "b", "--out", out],
        2,
        words,
    );
}

#[test]
fn a_place_that_cannot_be_written_to_is_refused_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (absent, file, socket) = (path("absent/out"), path("file"), path("socket"));
    fs::write(&file, "").unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    let beneath_a_file = format!("{file}/out");
    // None of the inputs exists, and still the error is about the output.
    for out in [&absent, &beneath_a_file] {
        let words = [&out[..out.len() - "/out".len()], "because"];
        check(
            &["image", "--kernel", "k", "--busybox", "b", "--out", out],
            2,
            &words,
        );
        check(
            &["record", "--socket", "s", "--listen", "l", "--out", out],
            2,
            &words,
        );
        check(&["demo", "--directory", out], 2, &[out]);
    }
    let record = |out: &str| {
        let words = [
            "the cassette cannot be written to",
            out,
            "is not a regular file",
        ];
        check(
            &["record", "--socket", "s", "--listen", "l", "--out", out],
            2,
            &words,
        );
    };
    record(&socket);
    record(folder.path().to_str().unwrap());
    // An existing output file is replaced, so it is no reason to refuse; the missing VMM is.
    let arguments = [
        "record", "--socket", "/nowhere", "--listen", "l", "--out", &file,
    ];
    check(&arguments, 2, &["/nowhere"]);
    assert_eq!(fs::read(&file).unwrap(), b"");

    let tree = path("tree");
    for mount_point in ["dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(format!("{tree}/{mount_point}")).unwrap();
    }
    let inside = format!("{tree}/out");
    let words = [&tree[..], "would then hold itself"];
    check(
        &["image", "--kernel", "k", "--tree", &tree, "--out", &inside],
        2,
        &words,
    );
    assert_eq!(fs::read_dir(&tree).unwrap().count(), 4);
}

#[test]
fn a_log_filter_that_cannot_be_parsed() {
    let output = super::command(["api", "--list"])
        .env("RUST_LOG", "chv_sandbox=loud=er")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        said.starts_with("warning: RUST_LOG is not a valid filter"),
        "{said}"
    );
}

#[test]
fn a_log_in_a_pipe_has_no_colours() {
    let output = super::command(["run", "--golden", "/nowhere", "--", "echo"])
        .env("RUST_LOG", "error")
        .env_remove("CLICOLOR_FORCE")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        said.contains(" ERROR ") && !said.contains('\x1b'),
        "{said:?}"
    );
}
