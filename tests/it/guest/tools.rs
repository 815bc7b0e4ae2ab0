//! Tools that a host dispatches over the channel: their results, deadlines, limits and privileges.

use std::time::{Duration, Instant};

use chv_sandbox::guest::dispatcher::{Confinement, Dispatcher, Limits, MAX_DEADLINE_MS, Toolbox};
use chv_sandbox::guest::frame::{encode, read_frame};
use chv_sandbox::guest::protocol::{Frame, MAX_OUTPUT, ToolDispatch, ToolName};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Resource, Signal, getrlimit};
use serde_json::{Value, json};

use super::host::{FakeSystem, Host, LIMIT, ends};

#[test]
fn every_tool_runs() {
    let host = Host::new();
    let check = |tool: &str, params: Value, is_expected: fn(&str) -> bool| {
        let result = host.run(tool, params);
        assert_eq!(
            (result.exit_code, result.stderr.as_str()),
            (0, ""),
            "{tool}"
        );
        assert!(is_expected(&result.stdout), "{tool}: {:?}", result.stdout);
    };
    check("echo", json!({"message": "-n %s\\n ü"}), |out| {
        out == "-n %s\\n ü\n"
    });
    check("whoami", json!({}), |out| out.len() > 1);
    check("uname", json!({"flag": "-s"}), |out| out == "Linux\n");
    check("cat", json!({"path": "/proc/self/comm"}), |out| {
        out == "cat\n"
    });
    check("ls", json!({"path": "/"}), |out| {
        out.lines().any(|line| line == "proc")
    });
    check("env", json!({}), |out| {
        let mut names: Vec<_> = out
            .lines()
            .filter_map(|line| line.split('=').next())
            .collect();
        names.sort_unstable();
        names == ["HOME", "LANG", "PATH"]
    });
    check("sh", json!({"script": "pwd; umask >/dev/null"}), |out| {
        out == "/\n"
    });
}

#[test]
fn exit_codes_and_standard_error_come_back() {
    let host = Host::new();
    let check = |script: &str, exit_code: i32, stdout: &str, stderr: &str| {
        let result = host.script(script);
        let actual = (
            result.exit_code,
            result.stdout.as_str(),
            result.stderr.as_str(),
        );
        assert_eq!(actual, (exit_code, stdout, stderr), "{script}");
    };
    check("exit 3", 3, "", "");
    check("echo out; echo err >&2", 0, "out\n", "err\n");
    check("kill -TERM $$", 143, "", "");
    check("printf '\\377'", 0, "\u{fffd}", "");
    check("cat", 0, "", "");
}

#[test]
fn tools_that_cannot_be_run_have_the_guests_own_exit_codes() {
    let toolbox = r#"{"tools": {"absent": {"program": "/nonexistent/program"}}}"#;
    let toolbox = Toolbox::from_json(toolbox.as_bytes()).unwrap();
    let host = Host::with(toolbox, &Confinement::in_process(), FakeSystem::default());
    let check = |tool: &str, params: Value, exit_code: i32, stderr: &str| {
        let result = host.run(tool, params);
        assert_eq!(result.exit_code, exit_code, "{tool}");
        assert!(result.stderr.contains(stderr), "{tool}: {}", result.stderr);
        assert_eq!(result.stdout, "");
    };
    check("sh", json!({"script": "true"}), 127, "\"sh\" is not known");
    check("rm", json!({}), 127, "\"rm\" is not known");
    check("echo", json!({}), 254, "\"message\" is missing");
    check("echo", json!({"message": "\0"}), 254, "NUL");
    check(
        "absent",
        json!({}),
        254,
        "/nonexistent/program could not be run",
    );
    let long = Duration::from_millis(MAX_DEADLINE_MS + 1);
    host.dispatch("long", "whoami", json!({}), long);
    assert_eq!(host.result().exit_code, 254);
}

#[test]
fn at_the_deadline_everything_that_the_tool_started_is_killed() {
    let host = Host::new();
    // Five processes: a child, one in a session of its own, a grandchild, and two whose parents have ended. The first
    // of these two left the tool's session; the second left the session of a process that had left it.
    let script =
        "sleep 1000 & echo $!; setsid sleep 1000 & echo $!; sh -c 'sleep 1000; :' & echo $!;
        (setsid sleep 1000 & echo $!);
        (setsid sh -c '(setsid sleep 1000 & echo $!); :' );
        wait; sleep 1000";
    let started = Instant::now();
    host.dispatch(
        "late",
        "sh",
        json!({ "script": script }),
        Duration::from_secs(2),
    );
    let result = host.result();
    assert_eq!(
        (result.exit_code, result.stderr.as_str()),
        (137, "deadline_exceeded")
    );
    assert!(started.elapsed() >= Duration::from_secs(2));
    let pids: Vec<i32> = result
        .stdout
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!(pids.len(), 5, "{:?}", result.stdout);
    for pid in pids {
        assert!(ends(pid), "{pid} still runs");
    }
    assert_eq!(host.run("whoami", json!({})).exit_code, 0);
}

#[test]
fn a_deadline_of_nothing_is_exceeded() {
    let host = Host::new();
    host.dispatch(
        "none",
        "sh",
        json!({"script": "sleep 1000"}),
        Duration::ZERO,
    );
    assert_eq!(host.result().exit_code, 137);
}

#[test]
fn a_process_that_a_tool_leaves_runs_on_and_delays_nothing() {
    let host = Host::new();
    let result = host.script("sleep 1000 & echo $!");
    assert_eq!(result.exit_code, 0);
    let left = result.stdout.trim().parse().unwrap();
    let pid = Pid::from_raw(left).unwrap();
    rustix::process::test_kill_process(pid).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert!(ends(left));

    // A process that goes on writing: the result has the output up to the tool's end, and none after it.
    let result = host.script("yes & echo $! >&2; sleep 0.1");
    assert_eq!(result.exit_code, 0);
    assert!(result.stdout.starts_with("y\n"));
    assert!(
        ends(result.stderr.trim().parse().unwrap()),
        "its pipe is closed"
    );
}

#[test]
fn a_daemon_of_a_tool_that_ends_in_time_runs_on_and_takes_nothing_with_it() {
    let host = Host::new();
    let result = host.script("(setsid sleep 1000 & echo $!)");
    assert_eq!(result.exit_code, 0);
    let left: i32 = result.stdout.trim().parse().unwrap();

    // The deadline of another tool does not affect this process.
    let script = json!({"script": "(setsid sleep 1000 & echo $!); sleep 1000"});
    host.dispatch("late", "sh", script, Duration::from_secs(1));
    let late = host.result();
    assert_eq!(late.exit_code, 137);
    assert!(ends(late.stdout.trim().parse().unwrap()));
    let pid = Pid::from_raw(left).unwrap();
    rustix::process::test_kill_process(pid).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert!(ends(left));
}

#[test]
fn standard_output_leaves_while_the_tool_runs() {
    let directory = tempfile::tempdir().unwrap();
    let flag = directory.path().join("flag");
    let flag = flag.display();
    let host = Host::new();
    let script = format!(
        "head -c 100000 /dev/zero; echo err >&2; until [ -e '{flag}' ]; do sleep 0.05; done; echo end"
    );
    host.dispatch("slow", "sh", json!({ "script": script }), LIMIT);
    let Frame::EvidenceChunk(first) = host.receive() else {
        panic!("no chunk")
    };
    assert_eq!((first.seq, first.is_terminal), (1, false));
    assert!(first.chunk_data.len() >= 1 << 16);
    std::fs::write(flag.to_string(), "").unwrap();

    let mut bytes = first.chunk_data;
    let result = loop {
        match host.receive() {
            Frame::EvidenceChunk(chunk) => bytes.extend(chunk.chunk_data),
            Frame::ToolResult(result) => break result,
            other => panic!("{other:?}"),
        }
    };
    assert!(
        bytes.ends_with(b"\0end\nerr\n"),
        "standard error comes last"
    );
    assert_eq!(result.stdout.len(), 100_004);
}

#[test]
fn a_small_output_leaves_in_one_piece_with_its_result() {
    let toolbox = Toolbox::built_in().with_shell();
    let dispatcher =
        Dispatcher::new(toolbox, &Confinement::in_process(), FakeSystem::default()).unwrap();
    let dispatch = encode(&Frame::ToolDispatch(ToolDispatch {
        command_id: "c1".to_owned(),
        tool: ToolName::new("sh").unwrap(),
        params: json!({"script": "echo out; echo err >&2"}),
        deadline_ms: LIMIT.as_millis() as u64,
    }));
    // A socket that keeps message boundaries.
    let flags = SocketFlags::CLOEXEC;
    let (host, guest) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let served = std::thread::spawn(move || dispatcher.serve(guest));
    rustix::io::write(&host, &dispatch.unwrap()).unwrap();
    let mut piece = [0; 4096];
    let length = rustix::io::read(&host, &mut piece).unwrap();
    let mut first = &piece[..length];
    let mut names = Vec::new();
    while let Some(frame) = read_frame(&mut first).unwrap() {
        names.push(frame.name());
    }
    assert_eq!(names, ["EvidenceChunk", "EvidenceChunk", "ToolResult"]);
    rustix::net::shutdown(&host, Shutdown::Write).unwrap();
    let follows = rustix::io::read(&host, &mut piece).unwrap();
    assert_eq!(follows, 0, "and nothing follows");
    served.join().unwrap().unwrap();
}

#[test]
fn the_guests_own_messages_are_part_of_the_evidence() {
    let host = Host::new();
    host.dispatch("none", "nothing", json!({}), LIMIT);
    let (chunks, refused) = host.evidence();
    assert_eq!((chunks.len(), refused.exit_code), (1, 127));
    let script = json!({"script": "echo out; echo err >&2; sleep 1000"});
    host.dispatch("late", "sh", script, Duration::from_secs(1));
    let (chunks, killed) = host.evidence();
    assert_eq!((chunks.len(), killed.exit_code), (2, 137));
    assert_eq!(chunks[1].chunk_data, b"deadline_exceeded");
    let (chunks, nothing) = {
        host.dispatch("quiet", "sh", json!({"script": "true"}), LIMIT);
        host.evidence()
    };
    assert_eq!((chunks.len(), nothing.exit_code), (1, 0));
    assert!(chunks[0].chunk_data.is_empty());
}

#[test]
fn output_is_capped_and_the_rest_is_dropped() {
    let host = Host::new();
    let result = host.script("yes | head -c 3000000; yes n | head -c 3000000 >&2; exit 5");
    assert_eq!(result.exit_code, 5);
    assert_eq!(result.stdout, "y\n".repeat(MAX_OUTPUT / 2));
    assert_eq!(result.stderr, "n\n".repeat(MAX_OUTPUT / 2));

    // Zero bytes take the most room as JSON. Two full outputs of zero bytes still fit into a frame.
    let result = host.script("head -c 2000000 /dev/zero; head -c 2000000 /dev/zero >&2");
    assert_eq!(
        (result.stdout.len(), result.stderr.len()),
        (MAX_OUTPUT, MAX_OUTPUT)
    );
}

#[test]
fn limits_hold_inside_the_tool() {
    let limits = Limits {
        memory_mib: Some(300),
        processes: None,
        open_files: Some(50),
        file_size_mib: Some(1),
        output_mib: None,
    };
    let confinement = Confinement {
        limits,
        ..Confinement::in_process()
    };
    let toolbox = Toolbox::built_in().with_shell();
    let host = Host::with(toolbox, &confinement, FakeSystem::default());
    let result = host.script("ulimit -d; ulimit -v; ulimit -n; ulimit -c");
    // The limit on memory leaves the limit on address space (`ulimit -v`) as it is.
    let reserved = match getrlimit(Resource::As).current {
        Some(bytes) => (bytes / 1024).to_string(),
        None => "unlimited".to_owned(),
    };
    assert_eq!(result.stdout, format!("307200\n{reserved}\n50\n0\n"));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large");
    let script = format!("head -c 2000000 /dev/zero > '{}'", file.display());
    assert_ne!(host.script(&script).exit_code, 0);
    assert_eq!(file.metadata().unwrap().len(), 1024 * 1024);
    let memory = host.script("head -c 400000000 /dev/zero | tail -c 400000000 | wc -c");
    assert!(!memory.stdout.contains("400000000"), "{memory:?}");
}

#[test]
fn privileges_are_given_up() {
    let host = Host::new();
    let status = host.run("cat", json!({"path": "/proc/self/status"})).stdout;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim_start_matches(':').trim()
    };
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1", "2"));
    let mount = host.script("mount -t proc none /proc && echo mounted");
    assert_ne!(mount.exit_code, 0);
    assert_eq!(mount.stdout, "");
}

#[test]
fn root_and_user_are_changed_by_a_dispatcher_that_is_root() {
    if !rustix::process::geteuid().is_root() {
        // Only root can change its root directory and its user.
        return;
    }
    let toolbox = || Toolbox::built_in().with_shell();
    // The tests leave the control groups of this machine alone.
    let confinement = |root| Confinement {
        cgroup: None,
        ..Confinement::for_guest(root)
    };
    let host = Host::with(toolbox(), &confinement(None), FakeSystem::default());
    assert_eq!(
        host.script("id -u; id -g; id -G").stdout,
        "1000\n1000\n1000\n"
    );

    let empty = tempfile::tempdir().unwrap();
    let confinement = confinement(Some(empty.path().to_owned()));
    let host = Host::with(toolbox(), &confinement, FakeSystem::default());
    let result = host.script("true");
    assert_eq!(result.exit_code, 254);
    assert!(
        result.stderr.contains("sh could not be run: No such file"),
        "{}",
        result.stderr
    );
}
