//! `chv-sandbox compat diff`.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use super::{command, compat, contract, text};

#[test]
fn the_json_is_exactly_the_report() {
    let done = compat(["diff", "v52.0", "v53.0", "--format", "json"]);
    assert_eq!(done.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&report), ["base", "findings", "revision", "verdict"]);
    assert_eq!(report["base"], "v52.0");
    assert_eq!(report["revision"], "v53.0");
    assert_eq!(report["verdict"], "breaking");
    let findings = report["findings"].as_array().unwrap();
    assert!(!findings.is_empty());
    for finding in findings {
        assert_eq!(
            keys(finding),
            [
                "affects",
                "direction",
                "evidence",
                "id",
                "level",
                "message",
                "path"
            ]
        );
    }
    let again = compat(["diff", "v52.0", "v53.0", "--format", "json"]);
    assert_eq!(again.stdout, done.stdout);
}

#[test]
fn nothing_breaks_against_itself() {
    for format in ["text", "json", "markdown"] {
        let done = compat(["diff", "v53.0", "v53.0", "--format", format]);
        assert_eq!(done.status.code(), Some(0), "{format}");
        assert!(!done.stdout.is_empty(), "{format}");
    }
    let file = contract("v53.0");
    let done = compat(["diff".as_ref(), file.as_os_str(), file.as_os_str()]);
    assert_eq!(done.status.code(), Some(0));
}

#[test]
fn a_file_that_is_called_like_a_release_is_named_with_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(contract("v44.0"), folder.path().join("v53.0")).unwrap();
    let run = |base: &str| {
        let arguments = ["diff", base, "v53.0", "--format", "json"];
        let done = command(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    assert_eq!(run("v53.0")["findings"], Value::Array(Vec::new()));
    let file = run("./v53.0");
    assert_eq!(file["base"], "./v53.0");
    assert_eq!(file["verdict"], "breaking");
}

#[test]
fn output_is_coloured_on_a_terminal_or_on_request() {
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = command(["diff", "v52.0", "v53.0"]);
        command.envs(variables.iter().copied());
        command.output().unwrap().stdout.contains(&0x1b)
    };
    assert!(!coloured(&[]));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("NO_COLOR", "1")]));
}

#[test]
fn a_reader_that_closes_the_pipe_early_is_no_error() {
    let mut child = command(["diff", "v44.0", "v53.0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(text(&done.stderr), "");
}

#[test]
fn text_of_a_document_is_escaped_for_the_terminal_and_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.json");
    let hostile = r#"\u001b[2J</details>@all|`x`"#;
    let good = fs::read_to_string(contract("v53.0")).unwrap();
    let renamed = good.replacen("\"free_page_reporting\"", &format!("\"{hostile}\""), 1);
    assert_ne!(renamed, good);
    fs::write(&path, renamed).unwrap();
    let run = |format: &str| {
        let done = compat([
            "diff".as_ref(),
            contract("v53.0").as_os_str(),
            path.as_os_str(),
            "--format".as_ref(),
            format.as_ref(),
        ]);
        assert_eq!(done.status.code(), Some(1), "{}", text(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let shown = run("text");
    assert!(
        shown.contains("\\u{1b}[2J") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    let shown = run("markdown");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let json: Value = serde_json::from_str(&run("json")).unwrap();
    assert!(json.to_string().contains("[2J"));
}

#[test]
fn a_report_that_cannot_be_written_ends_with_2() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let done = command(["diff", "v53.0", "v53.0"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(
        text(&done.stderr).contains("standard output"),
        "{}",
        text(&done.stderr)
    );
}
