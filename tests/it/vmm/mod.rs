//! Spawning and stopping the VMM process, with a stand-in for the VMM. The tests in `real` use a real one.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the output of a skipped test, a stand-in or a measurement"
)]

mod agent;
mod confinement;
pub(crate) mod fake;
mod flood;
mod identity;
mod left_behind;
mod real;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use chv_sandbox::api::{Operation, Request};
use chv_sandbox::broadcast::RecvError;
use chv_sandbox::client::Client;
use chv_sandbox::vmm::{Ended, Error, Exit, ShutdownStep, Vmm, VmmConfig};
use tempfile::{TempDir, tempdir};
use tokio::time::timeout;

/// A limit that nothing here reaches, even on a busy machine.
const GENEROUS: Duration = Duration::from_secs(30);

/// Long enough for a test to see that an event doesn't happen.
const SHORT: Duration = Duration::from_millis(300);

fn is_empty(directory: &Path) -> bool {
    directory.read_dir().unwrap().next().is_none()
}

async fn spawn(words: &str) -> (TempDir, Vmm) {
    let root = tempdir().unwrap();
    let vmm = Vmm::spawn(&fake::config(root.path(), words)).await.unwrap();
    (root, vmm)
}

/// A VMM whose sockets keep their names.
async fn spawn_with_names() -> (TempDir, Vmm) {
    let root = tempdir().unwrap();
    let config = VmmConfig {
        keep_socket_names: true,
        ..fake::config(root.path(), "")
    };
    let vmm = Vmm::spawn(&config).await.unwrap();
    (root, vmm)
}

/// Waits until the log has these words.
async fn has_logged(vmm: &Vmm, words: &str) {
    timeout(GENEROUS, async {
        while !vmm.log_tail().contains(words) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

async fn ended(vmm: &Vmm) -> Ended {
    timeout(GENEROUS, vmm.ended()).await.unwrap()
}

#[tokio::test]
async fn a_vmm_that_dies_at_its_start_leaves_its_last_words_and_nothing_else() {
    let root = tempdir().unwrap();
    let error = Vmm::spawn(&fake::config(root.path(), "die"))
        .await
        .unwrap_err();
    let Error::DiedAtStart { ended, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(ended.exit, Exit::Code(1));
    assert_eq!(ended.log_tail, "last words\n");
    assert!(error.to_string().contains("last words"), "{error}");
    assert!(!agent::runs(ended.pid));
    assert!(is_empty(root.path()));
}

#[tokio::test]
async fn a_vmm_that_never_answers_is_given_up_and_killed() {
    let root = tempdir().unwrap();
    let mut config = fake::config(root.path(), "silent");
    config.limits.vmm_start = SHORT;
    let error = Vmm::spawn(&config).await.unwrap_err();
    let Error::NotReady { pid, limit, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(limit, SHORT);
    assert!(is_empty(root.path()));
    // The VMM was killed, and no task is left that could report its end.
    timeout(GENEROUS, async {
        while agent::runs(pid) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_spawn_that_is_given_up_leaves_nothing() {
    let root = tempdir().unwrap();
    let config = fake::config(root.path(), "silent");
    timeout(SHORT, Vmm::spawn(&config)).await.unwrap_err();
    timeout(GENEROUS, async {
        while !is_empty(root.path()) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn each_step_of_the_ladder_is_reported() {
    async fn check(words: &str, step: ShutdownStep, exit: Exit) {
        let root = tempdir().unwrap();
        let mut config = fake::config(root.path(), words);
        if words.contains("hang-shutdown") {
            config.limits.vmm_shutdown = SHORT;
        }
        if words.contains("ignore-term") {
            config.limits.vmm_terminate = SHORT;
        }
        let vmm = Vmm::spawn(&config).await.unwrap();
        let (first, second) = tokio::join!(vmm.shutdown(), vmm.shutdown());
        assert_eq!((first.step, first.exit), (step, Some(exit)), "{words}");
        assert!(first.log_tail.contains("the fake VMM serves"), "{first:?}");
        assert_eq!(first, second);
        assert_eq!(first, vmm.shutdown().await);
        assert!(is_empty(root.path()));
        assert!(!agent::runs(vmm.process().unwrap().pid()));
    }

    check("", ShutdownStep::Api, Exit::Code(0)).await;
    check("refuse-shutdown", ShutdownStep::Terminate, Exit::Code(0)).await;
    check("hang-shutdown", ShutdownStep::Terminate, Exit::Code(0)).await;
    check(
        "refuse-shutdown ignore-term",
        ShutdownStep::Kill,
        Exit::Signal(9),
    )
    .await;
}

#[tokio::test]
async fn a_vmm_that_died_by_itself_is_noticed_and_cleared_away() {
    let (root, vmm) = spawn("").await;
    let (one, another) = (vmm.ended(), vmm.ended());
    let pid = vmm.process().unwrap().pid();
    let _ = vmm
        .client()
        .send(Request::raw(Operation::VmmShutdown, None))
        .await;
    let ended = ended(&vmm).await;
    assert_eq!((ended.pid, ended.exit), (pid, Exit::Code(0)));
    assert_eq!(one.await, ended);
    assert_eq!(another.await, ended);
    assert!(matches!(
        vmm.process().unwrap().open_files(),
        Err(Error::ProcessEnded { .. })
    ));
    let report = vmm.shutdown().await;
    assert_eq!(report.step, ShutdownStep::AlreadyEnded);
    assert_eq!(report.exit, Some(Exit::Code(0)));
    assert!(is_empty(root.path()));
}

#[tokio::test]
async fn a_dropped_vmm_is_killed_reaped_and_cleared_away() {
    let (root, vmm) = spawn("").await;
    let pid = vmm.process().unwrap().pid();
    let end = vmm.ended();
    drop(vmm);
    assert!(is_empty(root.path()));
    assert_eq!(timeout(GENEROUS, end).await.unwrap().exit, Exit::Signal(9));
    // The process is not even a zombie.
    assert!(!Path::new("/proc").join(pid.to_string()).exists());
}

#[test]
fn a_vmm_outlives_the_runtime_and_the_thread_that_spawned_it() {
    fn check(spawn: impl FnOnce(VmmConfig) -> Vmm + Send + 'static) {
        let root = tempdir().unwrap();
        let config = fake::config(root.path(), "");
        let vmm = std::thread::spawn(|| spawn(config)).join().unwrap();
        let runtime = current_thread();
        runtime.block_on(async {
            timeout(SHORT, vmm.ended()).await.unwrap_err();
            assert!(vmm.process().unwrap().holds_listener().unwrap());
            let client = Client::new(vmm.client().address().clone()).unwrap();
            client.release().await.unwrap();
            assert_eq!(vmm.shutdown().await.step, ShutdownStep::Api);
        });
    }
    fn current_thread() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    check(|config| current_thread().block_on(Vmm::spawn(&config)).unwrap());
    check(|config| {
        let outer = current_thread();
        let spawned =
            outer.spawn_blocking(move || current_thread().block_on(Vmm::spawn(&config)).unwrap());
        outer.block_on(spawned).unwrap()
    });
}

#[tokio::test]
async fn the_process_has_what_it_needs_and_no_more() {
    let root = tempdir().unwrap();
    let mut config = fake::config(root.path(), "");
    config.verbosity = 2;
    let vmm = Vmm::spawn(&config).await.unwrap();
    let process = vmm.process().unwrap();
    let proc = Path::new("/proc").join(process.pid().to_string());
    let run_dir = vmm.run_dir().unwrap();

    let environment = fs::read(proc.join("environ")).unwrap();
    let set = |variable: &[u8]| {
        environment
            .split(|byte| *byte == 0)
            .any(|set| set == variable)
    };
    assert!(set(b"MALLOC_ARENA_MAX=1"));
    assert!(set(b"FAKE_VMM="));
    let args = String::from_utf8_lossy(&environment).into_owned();
    assert!(args.contains("-v -v\0"), "{args}");

    assert!(process.holds_listener().unwrap());
    let files = process.open_files().unwrap();
    let has = |name: &str| {
        let file = fs::metadata(run_dir.join(name)).unwrap();
        files
            .iter()
            .any(|open| (open.device, open.inode) == (file.dev(), file.ino()) && open.writable)
    };
    // The log goes through the agent, which limits it.
    assert!(!has("vmm.log"));
    // A VMM that survives its agent must not hold the agent's lock.
    assert!(!has("lock"));
    for name in ["lock", "vmm.json", "vmm.stat", "vmm.log", "rw", "ro"] {
        let mode = fs::metadata(run_dir.join(name)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{name} {mode:o}");
    }
    has_logged(&vmm, "the fake VMM serves").await;
}

#[tokio::test]
async fn events_are_typed_and_end_with_the_process() {
    let (_root, vmm) = spawn("").await;
    let mut events = vmm.events();
    for _ in 0..2 {
        vmm.client()
            .send(Request::raw(Operation::VmInfo, None))
            .await
            .unwrap();
        // The torn event before this one is left out.
        let event = timeout(GENEROUS, events.recv()).await.unwrap().unwrap();
        assert_eq!((&*event.source, &*event.event), ("vm", "booted"));
        assert_eq!(event.timestamp, Duration::new(1, 5));
        assert_eq!(event.properties["id"], "_disk0");
    }
    vmm.shutdown().await;
    let closed = timeout(GENEROUS, events.recv()).await.unwrap();
    assert_eq!(closed, Err(RecvError::Closed));
}

#[tokio::test]
async fn a_vmm_of_another_program_is_asked_and_never_killed() {
    let (_root, vmm) = spawn_with_names().await;
    let attached = Vmm::attach(vmm.client().socket()).await.unwrap();
    assert!(attached.process().is_none());
    assert!(attached.run_dir().is_none());
    assert_eq!(attached.log_tail(), "");
    assert_eq!(attached.console(), None);
    assert_eq!(attached.events().recv().await, Err(RecvError::Closed));
    drop(attached);
    vmm.client().release().await.unwrap();

    let attached = Vmm::attach(vmm.client().socket()).await.unwrap();
    let report = attached.shutdown().await;
    // The fake exits without an answer.
    assert_eq!(report.step, ShutdownStep::NotConfirmed);
    assert_eq!(report.exit, None);
    timeout(SHORT, attached.ended()).await.unwrap_err();
    assert_eq!(ended(&vmm).await.exit, Exit::Code(0));

    let error = Vmm::attach(vmm.client().socket()).await.unwrap_err();
    assert!(matches!(error, Error::Client { .. }), "{error:?}");
}

#[tokio::test]
async fn paths_need_not_be_utf8_and_must_not_be_too_long() {
    let root = tempdir().unwrap();
    let odd = root.path().join(OsStr::from_bytes(b"\xff\xfe"));
    let vmm = Vmm::spawn(&fake::config(&odd, "")).await.unwrap();
    assert_eq!(vmm.shutdown().await.step, ShutdownStep::Api);

    let long = root.path().join("x".repeat(100));
    let error = Vmm::spawn(&fake::config(&long, "")).await.unwrap_err();
    assert!(
        matches!(error, Error::PathTooLong { limit: 108, .. }),
        "{error:?}"
    );
    let error = Vmm::attach(&long).await.unwrap_err();
    assert!(
        matches!(error, Error::PathTooLong { limit: 108, .. }),
        "{error:?}"
    );

    let missing = VmmConfig {
        binary: root.path().join("missing"),
        ..fake::config(root.path(), "")
    };
    let error = Vmm::spawn(&missing).await.unwrap_err();
    assert!(matches!(error, Error::BinaryNotFound { .. }), "{error:?}");
}
