//! Hosts that send wrong or too many records on a connection of a run.

use chv_sandbox::guest::dispatcher::{MAX_IN_FLIGHT, MAX_STREAMS, ServeError};
use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{
    Frame, Hello, OpenRun, Opened, RunOutcome, RunSignal, StdinMode,
};
use chv_sandbox::guest::record::{MAX_RECORD, RecordKind};
use serde_json::json;

use super::host::{Host, LIMIT, ends};
use super::records::{Run, dispatcher, open, record, script};

/// A tool that runs until it is killed. Its first output is its pid, so a host that has read the pid knows that it
/// runs.
fn waiting(id: &str) -> OpenRun {
    let mut open = script("echo $$; exec sleep 1000");
    open.command_id = id.to_owned();
    open
}

#[test]
fn a_wrong_record_ends_the_run_and_its_connection() {
    type Expected = fn(&ServeError) -> bool;
    let check = |open: &OpenRun, bytes: &[u8], expected: Expected| {
        let mut run = Run::start(&dispatcher(&json!({})), open);
        let pid = run.number();
        run.send_bytes(bytes);
        let error = run.broken();
        assert!(expected(&error), "{bytes:?}: {error:?}");
        assert!(ends(pid), "{pid} still runs");
    };
    let unreadable: Expected = |error| matches!(error, ServeError::Record(_));
    let unexpected: Expected = |error| matches!(error, ServeError::UnexpectedRecord { .. });
    let malformed: Expected = |error| matches!(error, ServeError::MalformedRecord(_));
    let waiting = waiting("c1");
    // Records whose headers declare 4 GiB, and one byte above the limit.
    check(&waiting, &[1, 0xff, 0xff, 0xff, 0xff], unreadable);
    check(&waiting, &[1, 0, 4, 0, 1], unreadable);
    check(&waiting, &[5, 0, 1, 0, 1], unreadable);
    // Records of unknown kinds.
    for kind in [0, 9, 0xff] {
        check(&waiting, &record(kind, b"x"), unreadable);
    }
    check(&waiting, &record(1, b""), unreadable);
    check(&waiting, &record(2, b"x"), unreadable);
    // Records of the other direction or of a transfer. The header is enough to refuse them.
    for kind in [3, 4, 6, 7] {
        check(&waiting, &[kind, 0, 0, 0, 9], unexpected);
    }
    check(&waiting, &record(8, &[0; 32]), unexpected);
    // Standard input after its end, and on a run that has none.
    check(
        &waiting,
        &[record(2, b""), record(1, b"x")].concat(),
        unexpected,
    );
    check(
        &waiting,
        &[record(2, b""), record(2, b"")].concat(),
        unexpected,
    );
    let without = OpenRun {
        stdin: StdinMode::None,
        ..waiting.clone()
    };
    check(&without, &record(1, b"x"), unexpected);
    check(&without, &record(2, b""), unexpected);
    for signal in [&b"kill"[..], b"\"stop\"", b"9", b"{}"] {
        check(&waiting, &record(5, signal), malformed);
    }
    // A frame of the channel.
    let hello = encode(&Frame::Hello(Hello::of_this_build())).unwrap();
    check(&waiting, &hello, unreadable);
}

#[test]
fn a_wrong_record_behind_input_that_nothing_reads_is_found_when_it_is_taken() {
    let mut run = Run::start(&dispatcher(&json!({})), &waiting("c1"));
    let pid = run.number();
    run.write(&vec![b'x'; MAX_RECORD]);
    run.send_bytes(&record(3, b"x"));
    assert!(matches!(
        run.broken(),
        ServeError::UnexpectedRecord {
            kind: RecordKind::Stdout
        }
    ));
    assert!(ends(pid));
}

#[test]
fn a_torn_record_ends_with_its_connection() {
    let mut run = Run::start(&dispatcher(&json!({})), &waiting("c1"));
    let pid = run.number();
    run.send_bytes(&[1, 0, 0, 0, 9, b'x']);
    run.close().unwrap();
    assert!(ends(pid));
}

#[test]
fn records_may_come_together_with_the_frame_that_opens() {
    let dispatcher = dispatcher(&json!({}));
    let open = script("cat");
    let body = serde_json::to_vec(&Frame::OpenRun(open.clone())).unwrap();
    let mut run = Run::connect(&dispatcher, body);
    let mut bytes = encode(&Frame::Hello(Hello::of_this_build())).unwrap();
    bytes.extend(encode(&Frame::OpenRun(open)).unwrap());
    run.send_bytes(&bytes);
    run.write(b"early");
    run.end_of_stdin();
    assert!(matches!(run.answer(), Frame::Hello(_)));
    assert_eq!(run.answer(), Frame::Opened(Opened {}));
    let ended = run.end();
    assert_eq!(ended.end.records_taken, 2);
    assert_eq!(ended.output(), "early");
}

#[test]
fn records_before_the_frame_that_opens_are_no_frames() {
    let run = Run::connect(&dispatcher(&json!({})), Vec::new());
    run.send_bytes(&record(1, &[b'x'; 256])[..4]);
    assert_eq!(run.refused(), "SANDBOX_VSOCK_FRAME_TOO_LARGE");
}

#[test]
fn a_connection_that_was_used_opens_nothing() {
    for used in [
        encode(&Frame::GuestQuery(super::protocol::query(
            chv_sandbox::guest::protocol::QueryKind::MemUsage,
        )))
        .unwrap(),
        b"\0\0\0\x0c{\"type\":\"x\"}".to_vec(),
    ] {
        let run = Run::connect(&dispatcher(&json!({})), Vec::new());
        run.send_bytes(&used);
        run.answer();
        run.send_bytes(&encode(&Frame::OpenRun(script("true"))).unwrap());
        assert_eq!(run.refused(), "SANDBOX_VSOCK_PROTOCOL_ERROR");
    }
}

#[test]
fn a_ninth_connection_of_its_own_is_refused() {
    let dispatcher = dispatcher(&json!({}));
    let mut runs: Vec<Run> = (0..MAX_STREAMS)
        .map(|number| Run::start(&dispatcher, &waiting(&number.to_string())))
        .collect();
    let refused = || Run::request(&dispatcher, &script("true")).refused();
    assert_eq!(refused(), "SANDBOX_TOO_MANY_STREAMS");
    assert_eq!(refused(), "SANDBOX_TOO_MANY_STREAMS");
    // The channel does not count among the eight connections.
    let host = Host::connect(dispatcher.clone());
    assert_eq!(host.script("exit 3").exit_code, 3);

    // A host may open the next connection once it has read the end of a run, before it has closed that run's
    // connection.
    for round in 0..20 {
        let mut run = runs.remove(0);
        run.signal(RunSignal::Kill);
        while run.next().0 != RecordKind::End {}
        let next = Run::start(&dispatcher, &waiting(&format!("next {round}")));
        run.close().unwrap();
        runs.push(next);
    }
    assert_eq!(refused(), "SANDBOX_TOO_MANY_STREAMS");
}

#[test]
fn both_kinds_of_runs_are_counted_together() {
    let dispatcher = dispatcher(&json!({}));
    let host = Host::connect(dispatcher.clone());
    let sleeping = json!({"script": "exec sleep 1000"});
    for number in 1..MAX_IN_FLIGHT {
        host.dispatch(&number.to_string(), "sh", sleeping.clone(), LIMIT);
    }
    // Once a later request is answered, all of them are in flight.
    host.ask(&Frame::Hello(Hello::of_this_build()));
    let mut last = Run::start(&dispatcher, &waiting("last"));
    last.number();
    let refused = Run::start(&dispatcher, &script("true")).end();
    match refused.end.outcome {
        RunOutcome::Refused { reason } => assert_eq!(reason, "32 tools are running already"),
        other => panic!("{other:?}"),
    }
    host.dispatch("one too many", "whoami", json!({}), LIMIT);
    assert_eq!(host.result().exit_code, 254);

    for id in ["last", "1"] {
        let duplicate = Run::request(&dispatcher, &waiting(id)).refused();
        assert_eq!(duplicate, "SANDBOX_VSOCK_DUPLICATE_REQUEST");
    }
    last.close().unwrap();
    let again = Run::start(&dispatcher, &script("exit 3")).end();
    assert_eq!(again.end.outcome, RunOutcome::Exited { code: 3 });
    let long = OpenRun {
        command_id: "c".repeat(257),
        ..open("whoami", json!({}))
    };
    let refused = Run::request(&dispatcher, &long).refused();
    assert_eq!(refused, "SANDBOX_VSOCK_PROTOCOL_ERROR");
}
