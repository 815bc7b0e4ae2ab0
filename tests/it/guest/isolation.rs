//! A tool can't read or kill other runs or the dispatcher.

use std::path::Path;

use chv_sandbox::guest::dispatcher::{Confinement, Dispatcher, Toolbox};
use chv_sandbox::guest::protocol::OpenRun;

use super::host::{FakeSystem, Host};
use super::records::{Run, script};

/// The version of Landlock that this kernel has.
fn landlock() -> i64 {
    // SAFETY: with this flag the call takes no pointer and only returns a number.
    unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0,
            1,
        )
    }
}

fn dispatcher(domain: bool) -> Dispatcher {
    let is_root = rustix::process::geteuid().is_root();
    let confinement = Confinement {
        user: is_root.then_some((1000, 1000)),
        domain,
        ..Confinement::in_process()
    };
    let toolbox = Toolbox::built_in().with_shell();
    Dispatcher::new(toolbox, &confinement, FakeSystem::default()).unwrap()
}

/// A run with a secret in its environment, and the pid of its process.
fn other(dispatcher: &Dispatcher) -> (Run, i32) {
    let mut open = OpenRun {
        command_id: "other".to_owned(),
        ..script("echo $$; exec sleep 1000")
    };
    open.env.insert("SECRET".to_owned(), "hunter2".to_owned());
    let mut run = Run::start(dispatcher, &open);
    let pid = run.number();
    (run, pid)
}

const READS: [&str; 6] = [
    "cat /proc/PID/environ",
    "head -c 1 /proc/PID/mem",
    "readlink /proc/PID/fd/0",
    "readlink /proc/PID/cwd",
    "cat /proc/PID/maps",
    "cat /proc/PID/fd/0",
];

#[test]
fn a_tool_reads_no_other_run_and_no_dispatcher() {
    if landlock() < 2 {
        // This kernel's Landlock can't keep processes of one user apart.
        return;
    }
    let dispatcher = dispatcher(true);
    let (run, pid) = other(&dispatcher);
    let host = Host::connect(dispatcher);
    for pid in [pid, std::process::id() as i32] {
        for read in READS {
            let read = read.replace("PID", &pid.to_string());
            let result = host.script(&format!("{read} | wc -c; {read} >/dev/null"));
            assert_ne!(result.exit_code, 0, "{read}: {result:?}");
            assert_eq!(result.stdout, "0\n", "{read}");
        }
    }
    // The names of running programs are no secret, and a tool may read the processes that it started.
    let name = host.script(&format!(
        "cat /proc/{pid}/comm; SECRET=x sleep 1000 & cat /proc/$!/environ | wc -c"
    ));
    let mut lines = name.stdout.lines();
    assert_eq!(lines.next(), Some("sleep"));
    assert_ne!(lines.next(), Some("0"));
    if landlock() >= 6 {
        let killed = host.script(&format!("kill -TERM {pid}"));
        assert_ne!(killed.exit_code, 0);
    }
    run.close().unwrap();
}

#[test]
fn without_a_domain_it_could() {
    let dispatcher = dispatcher(false);
    let (run, pid) = other(&dispatcher);
    let host = Host::connect(dispatcher);
    let read = host.script(&format!("tr '\\0' '\\n' < /proc/{pid}/environ"));
    assert!(read.stdout.contains("SECRET=hunter2"), "{read:?}");
    run.close().unwrap();
}

#[test]
fn a_domain_leaves_files_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let host = Host::connect(
        Dispatcher::new(
            Toolbox::built_in().with_shell(),
            &Confinement::in_process(),
            FakeSystem::default(),
        )
        .unwrap(),
    );
    let result = host.script(&format!(
        "cd '{}' && mkdir a b && echo x > a/x && ln a/x b/x && mv a/x b/y && ln -s y b/z && mkfifo b/p && cat b/z",
        path.display()
    ));
    assert_eq!(
        (result.exit_code, result.stdout.as_str()),
        (0, "x\n"),
        "{result:?}"
    );
    assert!(Path::new(path).join("b/x").exists());
}

#[test]
fn a_tool_is_killed_before_the_dispatcher() {
    let host = Host::new();
    let score = host.script("cat /proc/self/oom_score_adj; cat /proc/$PPID/oom_score_adj");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(score.stdout, format!("500\n{own}"));
}
