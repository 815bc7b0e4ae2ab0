//! The VMMs, run directories and files that a dead agent leaves, and how they are cleared away.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use chv_sandbox::vmm::{Action, LeftAlone, Vmm, reclaim};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
use serde_json::json;
use tempfile::tempdir;

use super::agent::{Agent, runs};
use super::{GENEROUS, fake, is_empty};

#[test]
fn a_vmm_that_survived_its_agent_is_killed_and_its_log_kept() {
    let root = tempdir().unwrap();
    let mut agent = Agent::start(&fake::config(root.path(), "survive"));
    agent.kill();
    assert!(runs(agent.vmm));

    let found = reclaim(root.path()).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, agent.run_dir);
    assert_eq!(
        found[0].action,
        Action::Killed {
            pids: vec![agent.vmm]
        }
    );
    assert!(
        found[0].log_tail.contains("the fake VMM serves"),
        "{found:?}"
    );
    assert!(!runs(agent.vmm));
    assert!(is_empty(root.path()));
}

pub(super) fn wait_until_gone(pid: u32) {
    let start = Instant::now();
    while runs(pid) {
        assert!(start.elapsed() < GENEROUS);
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn the_next_spawn_clears_away_what_is_left() {
    let root = tempdir().unwrap();
    let mut agent = Agent::start(&fake::config(root.path(), ""));
    agent.kill();
    // The parent-death signal takes a moment.
    wait_until_gone(agent.vmm);
    let vmm = Vmm::spawn(&fake::config(root.path(), "")).await.unwrap();
    assert!(!runs(agent.vmm));
    let left = agent.run_dir.exists().then(|| reclaim(root.path()));
    assert!(left.is_none(), "{left:?}");
    assert!(vmm.process().unwrap().holds_listener().unwrap());
}

#[tokio::test]
async fn files_of_a_living_agent_are_not_touched() {
    let root = tempdir().unwrap();
    let other = Agent::start(&fake::config(root.path(), ""));
    let ours = Vmm::spawn(&fake::config(root.path(), "")).await.unwrap();
    assert_eq!(reclaim(root.path()).unwrap(), []);
    assert!(runs(other.vmm) && other.run_dir.join("vmm.json").exists());
    assert!(ours.process().unwrap().holds_listener().unwrap());
}

/// A run directory of a dead agent whose record names the process `pid`, as a VMM would forge it to have that process
/// killed.
fn forge(root: &Path, pid: u32) -> PathBuf {
    let run_dir = root.join("vmm-0123456789abcdef");
    fs::create_dir(&run_dir).unwrap();
    let proc = Path::new("/proc").join(pid.to_string());
    let record = json!({
        "boot_id": fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim(),
        "listener_inode": 1,
        "binary": fs::read_link(proc.join("exe")).unwrap(),
        "uid": fs::metadata(&proc).unwrap().uid(),
    });
    fs::write(run_dir.join("vmm.json"), record.to_string()).unwrap();
    fs::write(
        run_dir.join("vmm.stat"),
        fs::read(proc.join("stat")).unwrap(),
    )
    .unwrap();
    run_dir
}

#[test]
fn a_process_that_a_forged_record_names_is_not_killed() {
    let mut victim = Command::new("sleep").arg("1000").spawn().unwrap();
    // The second process is this one.
    for pid in [victim.id(), std::process::id()] {
        let root = tempdir().unwrap();
        let run_dir = forge(root.path(), pid);
        let found = reclaim(root.path()).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        let expected = Action::LeftAlone(LeftAlone::NotProved { pid });
        assert_eq!(found[0].action, expected);
        assert!(runs(pid) && run_dir.exists());
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
}

#[test]
fn a_vmm_is_killed_whatever_its_record_says() {
    fn check(file: &str, content: &str) {
        let root = tempdir().unwrap();
        let mut agent = Agent::start(&fake::config(root.path(), "survive"));
        agent.kill();
        fs::write(agent.run_dir.join(file), content).unwrap();
        let found = reclaim(root.path()).unwrap();
        let pids = vec![agent.vmm];
        assert_eq!(found[0].action, Action::Killed { pids });
        assert!(!runs(agent.vmm));
        assert!(is_empty(root.path()));
    }

    check("vmm.json", "{");
    check("vmm.stat", "");
    check("vmm.stat", &fs::read_to_string("/proc/self/stat").unwrap());
}

/// A spawn is not delayed by hostile entries of the run root, and the entries that can be removed are.
#[tokio::test]
async fn a_hostile_run_root_holds_up_nothing() {
    let root = tempdir().unwrap();
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RWXU;
    for (number, name) in ["lock", "vmm.log", "vmm.json", "vmm.stat"]
        .iter()
        .enumerate()
    {
        let run_dir = root.path().join(format!("vmm-000000000000000{number}"));
        fs::create_dir(&run_dir).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, run_dir.join(name), kind, mode, 0).unwrap();
    }
    let nested = root.path().join("vmm-1111111111111111");
    fs::create_dir(&nested).unwrap();
    nest(&nested, 3_000);

    let config = fake::config(root.path(), "");
    let vmm = tokio::time::timeout(GENEROUS, Vmm::spawn(&config)).await;
    let vmm = vmm.unwrap().unwrap();
    // Removes the entries for which the spawn had no time.
    reclaim(root.path()).unwrap();
    let found = reclaim(root.path()).unwrap();
    // A FIFO in the place of the lock can't be locked. This run directory stays, and is reported.
    let lock = root.path().join("vmm-0000000000000000");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, lock);
    let reason = format!("{:?}", found[0].action);
    assert!(reason.contains("not a regular file"), "{reason}");
    vmm.shutdown().await;
}

/// Makes folders inside each other, deeper than any path may be long.
fn nest(at: &Path, depth: usize) {
    use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut folder = open(at, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&folder, "deeper", Mode::RWXU).unwrap();
        folder = openat(&folder, "deeper", flags, Mode::empty()).unwrap();
    }
}

#[test]
fn a_run_directory_without_a_vmm_is_removed() {
    fn check(prepare: impl FnOnce(&Path)) {
        let root = tempdir().unwrap();
        let run_dir = root.path().join("vmm-0123456789abcdef");
        fs::create_dir(&run_dir).unwrap();
        prepare(&run_dir);
        let found = reclaim(root.path()).unwrap();
        assert_eq!(found[0].action, Action::Removed);
        assert!(is_empty(root.path()));
        assert_eq!(reclaim(root.path()).unwrap(), []);
    }

    check(|_| {});
    check(|run_dir| fs::write(run_dir.join("lock"), "").unwrap());
    check(|run_dir| fs::write(run_dir.join("vmm.json"), "{").unwrap());
    check(|run_dir| {
        // A socket file without a listener. The test never listens on it: a process that another test is just starting
        // would hold the listener open for a moment.
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(
            &socket,
            &SocketAddrUnix::new(run_dir.join("api.sock")).unwrap(),
        )
        .unwrap();
        fs::create_dir(run_dir.join("of the machine")).unwrap();
        fs::write(run_dir.join("of the machine/config.json"), "").unwrap();
    });
}

#[test]
fn foreign_entries_are_left_alone_and_reported() {
    let root = tempdir().unwrap();
    let elsewhere = tempdir().unwrap();
    fs::write(elsewhere.path().join("precious"), "").unwrap();
    let odd = [
        "vmm-0000000000000000",
        "vmm-1111111111111111",
        "vmm-short",
        "a file",
    ]
    .map(|name| root.path().join(name));
    symlink(elsewhere.path(), &odd[0]).unwrap();
    fs::write(&odd[1], "").unwrap();
    fs::create_dir(&odd[2]).unwrap();
    fs::write(&odd[3], "").unwrap();

    let mut found = reclaim(root.path()).unwrap();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(found.len(), odd.len());
    for reclaimed in found {
        assert_eq!(reclaimed.action, Action::LeftAlone(LeftAlone::NotOurs));
        assert!(odd.contains(&reclaimed.path));
        assert!(fs::symlink_metadata(&reclaimed.path).is_ok());
    }
    assert!(elsewhere.path().join("precious").exists());
}

#[test]
fn a_run_root_that_does_not_exist_has_nothing() {
    let root = tempdir().unwrap();
    assert_eq!(reclaim(&root.path().join("missing")).unwrap(), []);
}
