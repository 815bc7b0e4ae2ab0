//! How the guest reports the end of a tool, to a host that has listed `result/1` and to an older host.

use std::time::Duration;

use chv_sandbox::guest::dispatcher::{Confinement, Dispatcher, MAX_DEADLINE_MS, Toolbox};
use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{
    Extension, Frame, Hello, MAX_OUTPUT, ResultDetails, ToolDispatch, ToolName, ToolOutcomeKind,
    ToolResult,
};
use serde_json::{Value, json};

use super::host::{FakeSystem, Host, LIMIT};

/// A dispatcher with a shell, and with a tool whose program does not exist.
fn dispatcher() -> Dispatcher {
    let tools = r#"{"sh": true, "tools": {"absent": {"program": "/nonexistent/program"}}}"#;
    let toolbox = Toolbox::from_json(tools.as_bytes()).unwrap();
    Dispatcher::new(toolbox, &Confinement::in_process(), FakeSystem::default()).unwrap()
}

fn hello_without(missing: &[Extension]) -> Frame {
    let mut hello = Hello::of_this_build();
    let is_missing = |name: &String| missing.iter().any(|it| it.name() == name);
    hello.extensions.retain(|name| !is_missing(name));
    Frame::Hello(hello)
}

/// A host that has listed the extension `result/1`.
fn greeted() -> Host {
    let host = Host::connect(dispatcher());
    assert!(matches!(host.ask(&hello_without(&[])), Frame::Hello(_)));
    host
}

#[track_caller]
fn details(result: &ToolResult) -> ResultDetails {
    result.details.expect("details for a host that listed them")
}

#[test]
fn every_outcome_is_told() {
    use ToolOutcomeKind::{DeadlineExceeded, Exited, GuestFailed, NoSuchTool, Refused, Signalled};

    let host = greeted();
    let check = |tool: &str, params: Value, deadline, outcome, exit_code| {
        host.dispatch("c1", tool, params.clone(), deadline);
        let result = host.result();
        let told = (details(&result).outcome, result.exit_code);
        assert_eq!(told, (outcome, exit_code), "{tool} {params}");
        result.stderr
    };
    let script = |script: &str, outcome, exit_code| {
        check("sh", json!({ "script": script }), LIMIT, outcome, exit_code)
    };
    // No exit code of a tool is mistaken for another kind of end.
    for code in [0, 3, 127, 128, 137, 143, 254, 255] {
        script(&format!("exit {code}"), Exited, code);
    }
    for (signal, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11)] {
        script(&format!("kill -{signal} $$"), Signalled, 128 + number);
    }
    let sleeping = json!({"script": "sleep 1000"});
    let said = check("sh", sleeping, Duration::ZERO, DeadlineExceeded, 137);
    assert_eq!(said, "deadline_exceeded");
    let said = check("rm", json!({}), LIMIT, NoSuchTool, 127);
    assert_eq!(said, "the tool \"rm\" is not known");
    let said = check("echo", json!({}), LIMIT, Refused, 254);
    assert!(said.contains("\"message\" is missing"), "{said}");
    let long = Duration::from_millis(MAX_DEADLINE_MS + 1);
    let said = check("whoami", json!({}), long, Refused, 254);
    assert!(said.contains("the deadline is above"), "{said}");
    let said = check("absent", json!({}), LIMIT, GuestFailed, 254);
    assert!(
        said.contains("/nonexistent/program could not be run"),
        "{said}"
    );
}

#[test]
fn totals_count_what_was_dropped() {
    let host = greeted();
    let result = host.script("yes | head -c 3000000; yes n | head -c 2000001 >&2; exit 5");
    let kept = MAX_OUTPUT as u64;
    let expected = ResultDetails {
        outcome: ToolOutcomeKind::Exited,
        stdout_total: 3_000_000,
        stdout_kept: kept,
        stderr_total: 2_000_001,
        stderr_kept: kept,
    };
    assert_eq!(details(&result), expected);
    assert_eq!(result.stdout, "y\n".repeat(MAX_OUTPUT / 2));

    // Everything is kept, up to the last byte that fits.
    for (size, kept) in [
        (0, 0),
        (1, 1),
        (kept - 1, kept - 1),
        (kept, kept),
        (kept + 1, kept),
    ] {
        let told = details(&host.script(&format!("head -c {size} /dev/zero")));
        assert_eq!((told.stdout_total, told.stdout_kept), (size, kept));
        assert_eq!((told.stderr_total, told.stderr_kept), (0, 0));
    }
}

#[test]
fn output_that_the_guests_own_text_replaces_counts_as_dropped() {
    let host = greeted();
    let script = json!({"script": "printf out; printf error >&2; sleep 1000"});
    host.dispatch("late", "sh", script, Duration::from_secs(1));
    let result = host.result();
    let words = "deadline_exceeded";
    let length = words.len() as u64;
    let expected = ResultDetails {
        outcome: ToolOutcomeKind::DeadlineExceeded,
        stdout_total: 3,
        stdout_kept: 3,
        stderr_total: length + 5,
        stderr_kept: length,
    };
    assert_eq!(details(&result), expected);
    assert_eq!(
        (result.stdout.as_str(), result.stderr.as_str()),
        ("out", words)
    );

    let result = host.run("rm", json!({}));
    let length = result.stderr.len() as u64;
    let told = details(&result);
    assert_eq!((told.stderr_total, told.stderr_kept), (length, length));
}

#[test]
fn bytes_that_are_no_text_stay_in_their_stream() {
    let host = greeted();
    let script = json!({"script": "printf '\\377\\342\\202'; printf '\\254!' >&2"});
    host.dispatch("c1", "sh", script.clone(), LIMIT);
    let (chunks, result) = host.evidence();
    let bytes: Vec<_> = chunks.into_iter().map(|chunk| chunk.chunk_data).collect();
    assert_eq!(bytes, [&b"\xff\xe2\x82"[..], b"\xac!"]);
    let told = (result.stdout.as_str(), result.stderr.as_str());
    assert_eq!(told, ("\u{fffd}\u{fffd}", "\u{fffd}!"));
    let told = details(&result);
    assert_eq!((told.stdout_kept, told.stderr_kept), (3, 2));

    // An older host decodes the two streams as one text.
    let older = Host::connect(dispatcher());
    older.dispatch("c1", "sh", script, LIMIT);
    let result = older.result();
    let told = (result.stdout.as_str(), result.stderr.as_str());
    assert_eq!(told, ("\u{fffd}€", "!"));
}

#[test]
fn an_older_host_gets_the_old_frame() {
    let dispatcher = dispatcher();
    let check = |hello: Option<Frame>, detailed: bool| {
        let host = Host::connect(dispatcher.clone());
        if let Some(hello) = hello {
            assert!(matches!(host.ask(&hello), Frame::Hello(_)));
        }
        for (tool, params) in [("sh", json!({"script": "exit 3"})), ("rm", json!({}))] {
            let result = host.run(tool, params);
            assert_eq!(result.details.is_some(), detailed, "{tool}");
            let frame = serde_json::to_value(Frame::ToolResult(result)).unwrap();
            let fields = frame.as_object().unwrap().len();
            assert_eq!(fields, if detailed { 11 } else { 6 }, "{frame}");
        }
    };
    check(None, false);
    check(Some(hello_without(&[Extension::Result])), false);
    check(Some(hello_without(&[Extension::Nonce])), true);
    // Each connection is treated by its own hello.
    check(None, false);
}

#[test]
fn a_tool_does_not_overtake_the_hello_before_it() {
    let host = Host::connect(dispatcher());
    let mut requests = encode(&hello_without(&[])).unwrap();
    let dispatch = Frame::ToolDispatch(ToolDispatch {
        command_id: "c1".to_owned(),
        tool: ToolName::new("echo").unwrap(),
        params: json!({"message": "hi"}),
        deadline_ms: LIMIT.as_millis() as u64,
    });
    requests.extend(encode(&dispatch).unwrap());
    // The answer to the hello is sent at once. It doesn't wait for the answer to the query while the tool may end.
    requests.extend(encode(&hello_without(&[])).unwrap());
    host.send_bytes(&requests);
    assert!(matches!(host.receive(), Frame::Hello(_)));
}
