//! Runs with streams, as their host sees them.

use chv_sandbox::guest::dispatcher::MAX_DEADLINE_MS;
use chv_sandbox::guest::protocol::{OpenRun, RunOutcome, RunSignal, StdinMode};
use chv_sandbox::guest::record::{MAX_RECORD, RecordKind};
use serde_json::{Value, json};

use super::host::ends;
use super::records::{Run, dispatcher, half_close, open, script, soon};

fn run(open: &OpenRun) -> Run {
    Run::start(&dispatcher(&json!({})), open)
}

#[test]
fn output_comes_back_to_the_byte() {
    let mut open = script("printf 'a\\377\\000\\342\\202'; printf '\\254' >&2; exit 7");
    open.stdin = StdinMode::None;
    let ended = run(&open).end();
    assert_eq!(ended.end.outcome, RunOutcome::Exited { code: 7 });
    assert_eq!(ended.stdout, b"a\xff\0\xe2\x82");
    assert_eq!(ended.stderr, b"\xac");
    assert_eq!((ended.end.stdout_total, ended.end.stderr_total), (5, 1));
    assert!(!ended.end.cut);
    assert_eq!(ended.end.records_taken, 0);
}

#[test]
fn output_larger_than_all_buffers_is_whole() {
    let ended = run(&script("seq 1 3000000")).end();
    let expected: String = (1..=3_000_000)
        .map(|number| format!("{number}\n"))
        .collect();
    assert!(ended.output() == expected);
}

#[test]
fn the_streams_come_in_the_order_of_writing() {
    let mut run = run(&script(
        "while read line; do echo \"out $line\"; read line; echo \"err $line\" >&2; done",
    ));
    for round in 0..20 {
        run.write(format!("{round}\n").as_bytes());
        assert_eq!(
            run.next(),
            (RecordKind::Stdout, format!("out {round}\n").into())
        );
        run.write(format!("{round}\n").as_bytes());
        assert_eq!(
            run.next(),
            (RecordKind::Stderr, format!("err {round}\n").into())
        );
    }
    run.end_of_stdin();
    let ended = run.end();
    assert_eq!(ended.end.outcome, RunOutcome::Exited { code: 0 });
    assert_eq!(ended.end.records_taken, 41);
}

#[test]
fn a_shell_that_asks_is_answered() {
    let mut run = run(&script("printf 'name? '; read name; echo \"hello $name\""));
    run.expect("name? ");
    run.write(b"wor");
    run.write(b"ld\n");
    run.expect("hello world\n");
    assert_eq!(run.end().end.outcome, RunOutcome::Exited { code: 0 });
}

#[test]
fn standard_input_of_any_size_reaches_the_tool() {
    let mut run = run(&script("sha256sum"));
    let piece: Vec<u8> = (0..=u8::MAX).cycle().take(MAX_RECORD).collect();
    for _ in 0..40 {
        run.write(&piece);
    }
    run.end_of_stdin();
    let ended = run.end();
    assert_eq!(ended.end.records_taken, 41);
    let expected = sha256(&piece.repeat(40));
    assert_eq!(ended.output(), format!("{expected}  -\n"));
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;

    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn echoing_while_reading_has_no_size_limit() {
    let run = run(&script("cat"));
    let piece: Vec<u8> = (0..=u8::MAX).rev().cycle().take(100_000).collect();
    let host = run.stream.try_clone().unwrap();
    let (mut writing, sent) = (run, piece.repeat(50));
    std::thread::scope(|scope| {
        // The host reads and writes at the same time: another thread reads from the same connection.
        let reading = scope.spawn(|| {
            use std::io::Read;
            let mut received = Vec::new();
            let mut host = &host;
            while received.len() < sent.len() {
                let mut header = [0; 5];
                host.read_exact(&mut header).unwrap();
                let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
                assert!(header[0] == RecordKind::Stdout as u8 && length <= MAX_RECORD);
                let start = received.len();
                received.resize(start + length, 0);
                host.read_exact(&mut received[start..]).unwrap();
            }
            received
        });
        for _ in 0..50 {
            writing.write(&piece);
        }
        assert!(reading.join().unwrap() == sent);
    });
    writing.close().unwrap();
}

#[test]
fn input_after_the_tool_has_closed_its_end_is_dropped() {
    let mut run = run(&script("exec <&-; echo closed; exec sleep 1000"));
    run.expect("closed\n");
    for _ in 0..20 {
        run.write(&vec![b'x'; MAX_RECORD]);
    }
    run.end_of_stdin();
    run.signal(RunSignal::Kill);
    let ended = run.end();
    assert_eq!(ended.end.outcome, RunOutcome::Cancelled {});
    assert_eq!(ended.end.records_taken, 22);
}

#[test]
fn input_after_the_tools_end_is_not_taken() {
    let mut run = run(&script("echo $$"));
    let pid = run.number();
    assert!(ends(pid));
    run.write(b"too late");
    let ended = run.end();
    assert_eq!(ended.end.outcome, RunOutcome::Exited { code: 0 });
    assert!(ended.end.records_taken <= 1, "{:?}", ended.end);
}

#[test]
fn a_signal_passes_input_that_nothing_reads() {
    let mut run = run(&script("echo started; exec sleep 1000"));
    run.expect("started\n");
    run.write(&vec![b'x'; MAX_RECORD]);
    run.signal(RunSignal::Terminate);
    assert_eq!(run.end().end.outcome, RunOutcome::Cancelled {});
}

#[test]
fn signals_reach_everything_that_the_tool_started() {
    let started = "sleep 1000 & echo $!; (setsid sleep 1000 & echo $!); wait; sleep 1000";
    for (signal, number) in [(RunSignal::Terminate, 15), (RunSignal::Kill, 9)] {
        let mut run = run(&script(&format!("exec 2>&1; {started}")));
        let mut lines = String::new();
        while lines.lines().count() < 2 || !lines.ends_with('\n') {
            lines.push_str(std::str::from_utf8(&run.next().1).unwrap());
        }
        run.signal(signal);
        let ended = run.end();
        assert_eq!(ended.end.outcome, RunOutcome::Cancelled {}, "{number}");
        for pid in lines.lines() {
            assert!(ends(pid.parse().unwrap()), "{pid} still runs");
        }
    }
}

#[test]
fn a_tool_that_takes_the_signal_says_how_it_ended() {
    let mut caught = run(&script(
        "trap 'echo caught; exit 3' TERM; echo ready; while :; do read line; done",
    ));
    caught.expect("ready\n");
    caught.signal(RunSignal::Terminate);
    let ended = caught.end();
    assert_eq!(ended.end.outcome, RunOutcome::Exited { code: 3 });
    assert_eq!(ended.stdout, b"ready\ncaught\n");

    // A run that another signal killed does not count as cancelled.
    let mut other = run(&script(
        "trap 'kill -9 $$' TERM; echo ready; while :; do read line; done",
    ));
    other.expect("ready\n");
    other.signal(RunSignal::Terminate);
    assert_eq!(other.end().end.outcome, RunOutcome::Signalled { signal: 9 });
    let segfault = run(&script("kill -SEGV $$")).end();
    assert_eq!(segfault.end.outcome, RunOutcome::Signalled { signal: 11 });
}

#[test]
fn a_cancel_that_races_with_the_exit_is_one_or_the_other() {
    let dispatcher = dispatcher(&json!({}));
    for _ in 0..30 {
        let mut run = Run::start(&dispatcher, &script("exit 5"));
        run.signal(RunSignal::Kill);
        match run.end().end.outcome {
            RunOutcome::Exited { code: 5 } | RunOutcome::Cancelled {} => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_connection_that_is_closed_cancels() {
    let tree = "(setsid sh -c '(setsid sleep 1000 & echo $!); sleep 1000' &); sleep 1000";
    for half in [false, true] {
        let mut run = run(&script(tree));
        let pid = run.number();
        // This also holds behind standard input that the tool does not read.
        for _ in 0..3 {
            run.write(&vec![b'x'; 100_000]);
        }
        match half {
            true => {
                half_close(&run);
                assert!(ends(pid), "{pid} still runs");
                run.close().unwrap();
            }
            false => {
                run.close().unwrap();
                assert!(ends(pid), "{pid} still runs");
            }
        }
    }
}

#[test]
fn the_deadline_counts_while_the_reader_stops() {
    let mut run = run(&soon(script("echo $$; exec yes")));
    let (_, first) = run.next();
    let first = String::from_utf8(first).unwrap();
    let pid: i32 = first.lines().next().unwrap().parse().unwrap();
    // The host reads nothing, so the tool blocks; it is killed at its deadline all the same.
    assert!(ends(pid), "{pid} still runs");
    let ended = run.end();
    assert_eq!(ended.end.outcome, RunOutcome::DeadlineExceeded {});
    let read = ended.stdout.len() as u64;
    assert_eq!(ended.end.stdout_total, read);
    assert!(read < 8 << 20, "{read} bytes were kept somewhere");
}

#[test]
fn a_process_that_the_tool_leaves_delays_nothing() {
    let mut run = run(&script("setsid sleep 1000 & echo $!"));
    let left = run.number();
    assert_eq!(run.end().end.outcome, RunOutcome::Exited { code: 0 });
    let pid = rustix::process::Pid::from_raw(left).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert!(ends(left));
}

#[test]
fn the_environment_and_the_directory_are_the_hosts_where_the_tool_takes_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let mut open = script("pwd; echo \"$A $LANG $HOME\"");
    open.cwd = Some(path.to_owned());
    open.env = [("A", "1 2"), ("LANG", "de")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let output = run(&open).end().output();
    assert_eq!(output, format!("{path}\n1 2 de /tmp\n"));
    // The variables that a shell sets itself are filtered out.
    let names = "pwd; env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e '^_$' | sort | tr '\\n' ' '";
    let plain = run(&script(names)).end();
    assert_eq!(plain.output(), "/\nHOME LANG PATH ");
}

#[test]
fn refusals_are_opened_and_end_with_their_reason() {
    let tools = json!({
        "plain": {"program": "/bin/sh", "arguments": ["-c", "true"]},
        "some": {"program": "/bin/sh", "arguments": ["-c", "true"], "stdin": true, "cwd": true, "env": ["APP_*"]},
        "absent": {"program": "/nonexistent/program"},
    });
    let dispatcher = dispatcher(&tools);
    let check = |open: OpenRun, expected: &str| {
        let ended = Run::start(&dispatcher, &open).end();
        let reason = match &ended.end.outcome {
            RunOutcome::Refused { reason } => reason,
            RunOutcome::NoSuchTool {} => "no such tool",
            RunOutcome::GuestFailed { reason } => reason,
            other => panic!("{other:?}, not {expected}"),
        };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!((ended.end.records_taken, ended.end.stdout_total), (0, 0));
    };
    let plain = |tool| OpenRun {
        stdin: StdinMode::None,
        ..open(tool, Value::Null)
    };
    let with = |tool, change: fn(&mut OpenRun)| {
        let mut open = plain(tool);
        change(&mut open);
        open
    };
    check(plain("nothing"), "no such tool");
    check(open("plain", json!({"x": "y"})), "unknown parameter \"x\"");
    check(open("plain", json!([])), "must be an object");
    check(open("plain", json!({})), "no standard input");
    check(
        with("plain", |it| it.cwd = Some("/".to_owned())),
        "can't be chosen",
    );
    check(
        with("some", |it| it.cwd = Some("tmp".to_owned())),
        "not an absolute path",
    );
    check(
        with("some", |it| it.cwd = Some("/a/../b".to_owned())),
        "\"..\"",
    );
    check(
        with("some", |it| it.cwd = Some("/nonexistent".to_owned())),
        "can't enter its directory: No such file",
    );
    check(
        with("some", |it| it.cwd = Some("/dev/null".to_owned())),
        "can't enter its directory: Not a directory",
    );
    for name in ["PATH", "LD_PRELOAD", "HOME", "app_x", "LANG"] {
        let mut open = plain("some");
        open.env.insert(name.to_owned(), String::new());
        check(
            open,
            &format!("doesn't take the environment variable {name:?}"),
        );
    }
    check(
        with("some", |it| {
            drop(it.env.insert("A=B".to_owned(), String::new()))
        }),
        "no name of an environment variable",
    );
    check(
        with("some", |it| {
            drop(it.env.insert("APP_X".to_owned(), "x".repeat(32 << 10)));
        }),
        "at most 32768 are taken",
    );
    check(
        with("some", |it| it.deadline_ms = MAX_DEADLINE_MS + 1),
        "the deadline is above",
    );
    check(plain("absent"), "/nonexistent/program could not be run");
    let mut allowed = plain("some");
    allowed.env.insert("APP_X".to_owned(), "x".repeat(30_000));
    let ended = Run::start(&dispatcher, &allowed).end();
    assert_eq!(ended.output(), "");
}
