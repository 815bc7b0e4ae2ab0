//! Warm runs: the files that their tools write are gone with the throwaway layer, and no process that they started is
//! left.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use chv_sandbox::guest::dispatcher::{Confinement, Dispatcher, Toolbox};
use chv_sandbox::guest::protocol::{
    Extension, Frame, Hello, ToolDispatch, ToolName, ToolOutcomeKind, ToolResult,
};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;
use serde_json::json;
use tempfile::TempDir;

use super::host::{FakeSystem, Host, LIMIT, ends};

/// A guest whose tools see this machine's root, in a mount namespace of its own.
struct Place {
    directory: TempDir,
    dispatcher: Dispatcher,
}

impl Place {
    /// Returns `None` where this process may not mount.
    fn new() -> Option<Place> {
        let may_mount = std::thread::spawn(|| isolate().is_ok()).join().unwrap();
        if !may_mount {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        // The tools run as another user, who needs access.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(directory.path(), mode).unwrap();
        let confinement = Confinement {
            user: Some((1000, 1000)),
            throwaway: Some(directory.path().join("layer")),
            ..Confinement::in_process()
        };
        let toolbox = Toolbox::built_in().with_shell();
        let dispatcher = Dispatcher::new(toolbox, &confinement, FakeSystem::default()).unwrap();
        Some(Place {
            directory,
            dispatcher,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn connect(&self) -> Host {
        let host = Host::connect_prepared(self.dispatcher.clone(), || isolate().unwrap());
        let Frame::Hello(hello) = host.ask(&Frame::Hello(Hello::of_this_build())) else {
            panic!("no hello");
        };
        assert!(hello.supports(Extension::Warm));
        host
    }

    /// Checks that the layer's directory was removed, so that no mount is left on it either.
    #[track_caller]
    fn assert_nothing_left(&self) {
        assert!(!self.path("layer").exists(), "the layer is left");
    }
}

/// Gives this thread, and the threads that it starts, a mount namespace of their own.
fn isolate() -> rustix::io::Result<()> {
    // SAFETY: this thread shares no working directory and no umask with other threads that matter to a test. It still
    // shares its descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let at = tempfile::tempdir().map_err(|_| rustix::io::Errno::IO)?;
    rustix::mount::mount("none", at.path(), c"tmpfs", MountFlags::empty(), c"")?;
    rustix::mount::unmount(at.path(), rustix::mount::UnmountFlags::empty())
}

fn warm(host: &Host, script: &str, deadline: Duration) {
    host.send(&Frame::WarmDispatch(ToolDispatch {
        command_id: "warm".to_owned(),
        tool: ToolName::new("sh").unwrap(),
        params: json!({ "script": script }),
        deadline_ms: deadline.as_millis().try_into().unwrap(),
    }));
}

fn warmed(host: &Host, script: &str) -> ToolResult {
    warm(host, script, LIMIT);
    host.result()
}

fn outcome(result: &ToolResult) -> ToolOutcomeKind {
    result.details.expect("this host takes details").outcome
}

#[test]
fn writes_of_a_warm_run_are_gone_and_its_reads_are_of_the_root() {
    let Some(place) = Place::new() else { return };
    let (kept, new) = (place.path("kept"), place.path("new"));
    fs::write(&kept, "before").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(&kept, mode).unwrap();
    let host = place.connect();
    let (kept_at, new_at) = (kept.display(), new.display());
    let script = format!(
        "cat {kept_at} && echo after > {kept_at} && cat {kept_at} && echo x > {new_at} && cat {new_at} && id -u \
         && echo y > /dev/null && test -e /proc/self/status"
    );
    let result = warmed(&host, &script);
    assert_eq!(result.exit_code, 0, "{result:?}");
    assert_eq!(result.stdout, "beforeafter\nx\n1000\n");
    assert_eq!(fs::read(&kept).unwrap(), b"before");
    assert!(!new.exists());
    place.assert_nothing_left();

    // The next warm run begins with an empty layer, and a run that is not warm writes to the root as usual.
    let result = warmed(&host, &format!("cat {kept_at}; test ! -e {new_at}"));
    assert_eq!(
        (result.exit_code, result.stdout.as_str()),
        (0, "before"),
        "{result:?}"
    );
    let result = host.script(&format!("echo x > {new_at}"));
    assert_eq!(result.exit_code, 0, "{result:?}");
    assert!(new.exists());
    host.close().unwrap();
}

#[test]
fn processes_that_a_warm_run_leaves_are_killed_before_its_result() {
    let Some(place) = Place::new() else { return };
    let host = place.connect();
    // Processes in sessions of their own. Only their root directory shows that they belong to the tool; one of them
    // holds a file open.
    let script = "cd /tmp; setsid sh -c 'exec 3>held; echo $$; exec sleep 1000' & \
                  setsid sh -c 'echo $$; exec sleep 1000' & sleep 0.2";
    let result = warmed(&host, script);
    assert_eq!(result.exit_code, 0, "{result:?}");
    let left: Vec<i32> = result
        .stdout
        .lines()
        .map(|it| it.parse().unwrap())
        .collect();
    assert_eq!(left.len(), 2, "{result:?}");
    for pid in left {
        let root = fs::read_link(format!("/proc/{pid}/root"));
        assert!(root.is_err() || ends(pid), "{pid} runs on");
    }
    place.assert_nothing_left();
    host.close().unwrap();
}

#[test]
fn a_warm_run_ends_at_its_deadline_and_leaves_nothing() {
    let Some(place) = Place::new() else { return };
    let host = place.connect();
    warm(
        &host,
        "setsid sleep 1000 & echo said; sleep 1000",
        Duration::from_millis(500),
    );
    let result = host.result();
    assert_eq!(outcome(&result), ToolOutcomeKind::DeadlineExceeded);
    assert_eq!(result.stdout, "said\n");
    place.assert_nothing_left();
    host.close().unwrap();
}

#[test]
fn a_second_warm_run_at_the_same_time_is_refused() {
    let Some(place) = Place::new() else { return };
    let host = place.connect();
    // The tool writes as much output as is sent while it still runs. The output begins with the pid.
    let script = "echo $$; head -c 70000 /dev/zero; kill -STOP $$";
    warm(&host, script, LIMIT);
    let Frame::EvidenceChunk(chunk) = host.receive() else {
        panic!("no chunk");
    };
    let said = String::from_utf8_lossy(&chunk.chunk_data);
    let pid = Pid::from_raw(said.lines().next().unwrap().parse().unwrap()).unwrap();

    let other = place.connect();
    other.send(&Frame::WarmDispatch(ToolDispatch {
        command_id: "other".to_owned(),
        tool: ToolName::new("whoami").unwrap(),
        params: json!({}),
        deadline_ms: 60_000,
    }));
    let result = other.result();
    assert_eq!(outcome(&result), ToolOutcomeKind::GuestFailed);
    assert!(result.stderr.contains("another warm run"), "{result:?}");

    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    loop {
        match host.receive() {
            Frame::EvidenceChunk(_) => {}
            Frame::ToolResult(result) => break assert_eq!(result.exit_code, 0, "{result:?}"),
            other => panic!("{other:?}"),
        }
    }
    place.assert_nothing_left();
}

#[test]
fn without_its_layer_no_tool_runs() {
    let Some(place) = Place::new() else { return };
    // A directory at the layer's path keeps the layer from being made.
    fs::create_dir(place.path("layer")).unwrap();
    let host = place.connect();
    let ran = place.path("ran");
    let result = warmed(&host, &format!("echo > {}", ran.display()));
    assert_eq!(outcome(&result), ToolOutcomeKind::GuestFailed);
    assert!(result.stderr.contains("could not be made"), "{result:?}");
    assert!(!ran.exists(), "it ran on the disk");
    host.close().unwrap();
}

#[test]
fn a_tool_that_is_not_run_needs_no_layer() {
    let host = Host::new();
    let dispatch = |tool: &str| {
        host.ask(&Frame::Hello(Hello::of_this_build()));
        host.send(&Frame::WarmDispatch(ToolDispatch {
            command_id: "warm".to_owned(),
            tool: ToolName::new(tool).unwrap(),
            params: json!({}),
            deadline_ms: 1,
        }));
        host.result()
    };
    assert_eq!(outcome(&dispatch("rm")), ToolOutcomeKind::NoSuchTool);
    assert_eq!(outcome(&dispatch("echo")), ToolOutcomeKind::Refused);
}
