//! The limits of a tool: those for all tools, those of its own, and those of a control group.

use std::fs;
use std::path::PathBuf;

use chv_sandbox::guest::dispatcher::{Confinement, Dispatcher, Limits, Toolbox};
use chv_sandbox::guest::protocol::{RunOutcome, RunSignal, StdinMode};
use serde_json::json;

use super::host::{FakeSystem, Host, ends};
use super::records::{Run, dispatcher, open, script};

#[test]
fn a_tools_own_limits_take_the_place_of_those_of_all() {
    let tools = json!({"own": {
        "program": "/bin/sh", "arguments": ["-c", "ulimit -n; ulimit -d; ulimit -f; ulimit -c"],
        "limits": {"open_files": 40, "memory_mib": 100, "processes": 1},
    }});
    let file = json!({
        "sh": true, "tools": tools, "limits": {"open_files": 50, "file_size_mib": 3},
    });
    let toolbox = Toolbox::from_json(file.to_string().as_bytes()).unwrap();
    // The limit on processes is off: without a control group the kernel counts all processes that the user has on this
    // machine.
    let confinement = Confinement {
        limits: Limits {
            processes: None,
            ..toolbox.limits().clone()
        },
        ..Confinement::in_process()
    };
    let host = Host::with(toolbox, &confinement, FakeSystem::default());
    // `ulimit` prints memory in KiB, and file sizes in blocks of 512 bytes.
    assert_eq!(host.run("own", json!({})).stdout, "40\n102400\n6144\n0\n");
    let plain = host.script("ulimit -n; ulimit -d; ulimit -f; (ulimit -n)");
    assert_eq!(plain.stdout, "50\n524288\n6144\n50\n");
}

#[test]
fn output_beyond_the_limit_is_counted_and_dropped() {
    let program = |script: &str| {
        json!({
            "program": "/bin/sh", "arguments": ["-c", script], "limits": {"output_mib": 1},
        })
    };
    let dispatcher = dispatcher(&json!({
        "much": program("head -c 700000 /dev/zero; head -c 700000 /dev/zero >&2; head -c 5000000 /dev/zero; exit 3"),
        "just": program("head -c 1048576 /dev/zero"),
    }));
    let start = |tool| {
        let mut open = open(tool, json!({}));
        open.stdin = StdinMode::None;
        Run::start(&dispatcher, &open).end()
    };
    let much = start("much");
    assert_eq!(much.end.outcome, RunOutcome::Exited { code: 3 });
    assert!(much.end.cut);
    let told = (much.end.stdout_total, much.end.stderr_total);
    assert_eq!(told, (5_700_000, 700_000));
    assert_eq!(much.stdout.len() + much.stderr.len(), 1 << 20);
    let just = start("just");
    assert!(!just.end.cut);
    assert_eq!(just.stdout.len(), 1 << 20);
}

#[test]
fn runtimes_that_reserve_much_run() {
    let host = Host::new();
    for (program, script) in [("node", "node -e 1"), ("python3", "python3 -c 1")] {
        if host.script(&format!("command -v {program}")).exit_code != 0 {
            // The program isn't installed on this machine.
            continue;
        }
        let result = host.script(script);
        assert_eq!(result.exit_code, 0, "{script}: {result:?}");
    }
}

/// A control group for one test, if this process may make groups with both controllers.
struct Parent(PathBuf);

impl Parent {
    fn new(name: &str) -> Option<Parent> {
        let root = PathBuf::from("/sys/fs/cgroup");
        let controllers = fs::read_to_string(root.join("cgroup.subtree_control")).ok()?;
        if !["memory", "pids"].iter().all(|it| controllers.contains(it)) {
            fs::write(root.join("cgroup.subtree_control"), "+memory +pids").ok()?;
        }
        let parent = root.join(format!("chv-test-{name}-{}", std::process::id()));
        fs::create_dir(&parent).ok()?;
        Some(Parent(parent))
    }

    fn dispatcher(&self, limits: Limits) -> Dispatcher {
        let confinement = Confinement {
            limits,
            cgroup: Some(self.0.clone()),
            ..Confinement::in_process()
        };
        let toolbox = Toolbox::built_in().with_shell();
        Dispatcher::new(toolbox, &confinement, FakeSystem::default()).unwrap()
    }

    /// The number of groups in this one.
    fn groups(&self) -> usize {
        let entries = fs::read_dir(&self.0).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_control_group_limits_what_is_used_by_all_that_a_tool_started() {
    let Some(parent) = Parent::new("limits") else {
        // This process may make no group: it isn't root, or the kernel has no cgroup v2.
        return;
    };
    let host = Host::connect(parent.dispatcher(Limits {
        memory_mib: Some(64),
        processes: Some(8),
        ..Limits::default()
    }));
    let script = |script: &str| host.script(script);
    let limits = script("ulimit -v; ulimit -d; ulimit -u; cat /proc/self/cgroup");
    assert!(
        limits.stdout.starts_with("unlimited\nunlimited\n"),
        "{limits:?}"
    );
    assert!(limits.stdout.contains("/tool-"), "{limits:?}");
    // Two processes that together use more memory than the group may have; the kernel kills the whole tool.
    let memory = script("head -c 200000000 /dev/zero | tail -c 200000000 | wc -c; echo survived");
    assert_eq!(memory.exit_code, 137, "{memory:?}");
    assert_eq!(memory.stdout, "");
    let processes = script("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; echo all");
    assert!(!processes.stdout.contains("all"), "{processes:?}");
    assert_eq!(script("echo next").stdout, "next\n");
    // A group whose processes outlive the tool is removed at a later run, once they have ended.
    let left = script("sleep 1000 & echo $!");
    let left = left.stdout.trim().parse().unwrap();
    assert!(parent.groups() >= 1);
    let pid = rustix::process::Pid::from_raw(left).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert!(ends(left));
}

#[test]
fn a_control_group_is_killed_as_a_whole_and_removed() {
    let Some(parent) = Parent::new("killed") else {
        // This process may make no group: it isn't root, or the kernel has no cgroup v2.
        return;
    };
    let dispatcher = parent.dispatcher(Limits::default());
    let tree = "(setsid sh -c '(setsid sleep 1000 & echo $!); sleep 1000' &); sleep 1000";
    let mut run = Run::start(&dispatcher, &script(tree));
    let pid = run.number();
    assert_eq!(parent.groups(), 1);
    run.signal(RunSignal::Kill);
    assert_eq!(run.end().end.outcome, RunOutcome::Cancelled {});
    assert!(ends(pid), "{pid} still runs");
    // Processes that were still dying at the end of the run are gone by the end of the next one, so the group is
    // removed then.
    Run::start(&dispatcher, &script("true")).end();
    assert_eq!(parent.groups(), 0);
}
