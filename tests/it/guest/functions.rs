//! Tools that are functions of the dispatcher's own process.

use std::io::{Read, Write};
use std::sync::mpsc;

use chv_sandbox::guest::dispatcher::Toolbox;
use chv_sandbox::guest::protocol::{MAX_OUTPUT, RunOutcome, RunSignal, StdinMode};
use chv_sandbox::guest::record::RecordKind;
use serde_json::json;

use super::host::{Host, LIMIT};
use super::records::{Run, open, serving, soon};

fn upper() -> Toolbox {
    Toolbox::built_in().with_function("upper", |run| {
        let mut input = String::new();
        run.stdin.read_to_string(&mut input).unwrap();
        let code = run.params["code"].as_u64().unwrap_or_default();
        write!(
            run.stdout,
            "{}{:?}{:?}",
            input.to_uppercase(),
            run.env,
            run.cwd
        )
        .unwrap();
        write!(run.stderr, "done").unwrap();
        code as u8
    })
}

#[test]
fn a_function_runs_either_way() {
    let dispatcher = serving(upper());
    let mut open = open("upper", json!({"code": 7}));
    open.env.insert("A".to_owned(), "b".to_owned());
    open.cwd = Some("/anywhere".to_owned());
    let mut run = Run::start(&dispatcher, &open);
    run.write(b"hel");
    run.write(b"lo");
    run.end_of_stdin();
    let ended = run.end();
    assert_eq!(ended.end.outcome, RunOutcome::Exited { code: 7 });
    let expected = "HELLO{\"A\": \"b\"}Some(\"/anywhere\")";
    assert_eq!(String::from_utf8_lossy(&ended.stdout), expected);
    assert_eq!(ended.stderr, b"done");

    let host = Host::connect(dispatcher);
    let result = host.run("upper", json!({"code": 3}));
    let told = (
        result.exit_code,
        result.stdout.as_str(),
        result.stderr.as_str(),
    );
    assert_eq!(told, (3, "{}None", "done"));
    assert_eq!(host.run("echo", json!({"message": "x"})).stdout, "x\n");
}

#[test]
fn a_function_that_panics_is_reported_as_guest_failed() {
    let panics = Toolbox::built_in().with_function("panics", |_| panic!("as the test asked"));
    let dispatcher = serving(panics);
    let ended = Run::start(&dispatcher, &open("panics", json!(null))).end();
    match ended.end.outcome {
        RunOutcome::GuestFailed { reason } => assert!(reason.contains("panicked"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let result = Host::connect(dispatcher).run("panics", json!(null));
    assert_eq!(result.exit_code, 254);
}

#[test]
fn a_function_that_waits_is_told_of_its_end_and_not_waited_for() {
    let (said, heard) = mpsc::channel();
    let waits = Toolbox::built_in().with_function("waits", move |run| {
        run.stdout.write_all(b"waiting").unwrap();
        // The writes fail once the run is over, because nothing reads the output any more.
        while run.stdout.write_all(&[b'.'; 1024]).is_ok() {
            if run.params == json!("slowly") {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        said.send(run.is_cancelled()).unwrap();
        0
    });
    let dispatcher = serving(waits);
    let mut run = Run::start(&dispatcher, &open("waits", json!(null)));
    run.next();
    run.signal(RunSignal::Kill);
    assert_eq!(run.end().end.outcome, RunOutcome::Cancelled {});
    assert!(heard.recv_timeout(LIMIT).unwrap());

    let mut run = Run::start(&dispatcher, &open("waits", json!(null)));
    run.next();
    // The dispatcher may be sending at this moment, so the result of the close is not fixed.
    let _ = run.close();
    assert!(heard.recv_timeout(LIMIT).unwrap());

    // The host keeps what it reads until the deadline.
    let late = Run::start(&dispatcher, &soon(open("waits", json!("slowly")))).end();
    assert_eq!(late.end.outcome, RunOutcome::DeadlineExceeded {});
    assert!(heard.recv_timeout(LIMIT).unwrap());

    let host = Host::connect(dispatcher);
    host.dispatch(
        "late",
        "waits",
        json!(null),
        std::time::Duration::from_secs(1),
    );
    assert_eq!(host.result().exit_code, 137);
    assert!(heard.recv_timeout(LIMIT).unwrap());
}

#[test]
fn a_function_that_is_asked_to_end_says_how_it_ended() {
    let asked = Toolbox::built_in().with_function("asked", |run| {
        run.stdout.write_all(b"ready").unwrap();
        while !run.is_cancelled() {
            std::thread::yield_now();
        }
        9
    });
    let mut run = Run::start(&serving(asked), &open("asked", json!(null)));
    run.expect("ready");
    run.signal(RunSignal::Terminate);
    assert_eq!(run.end().end.outcome, RunOutcome::Exited { code: 9 });
}

#[test]
fn output_of_a_function_is_bounded_as_a_programs_is() {
    let writes = Toolbox::built_in().with_function("writes", |run| {
        let written = run.stdout.write_all(&vec![b'x'; 3 * MAX_OUTPUT]);
        u8::from(written.is_err())
    });
    let dispatcher = serving(writes);
    let mut large = open("writes", json!(null));
    large.stdin = StdinMode::None;
    let mut run = Run::start(&dispatcher, &large);
    assert_eq!(run.next().0, RecordKind::Stdout);
    let ended = run.end();
    assert_eq!(ended.stdout.len(), 3 * MAX_OUTPUT);
    let result = Host::connect(dispatcher).run("writes", json!(null));
    assert_eq!((result.exit_code, result.stdout.len()), (0, MAX_OUTPUT));
}
