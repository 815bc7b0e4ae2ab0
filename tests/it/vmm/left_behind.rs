//! What a dead agent leaves, and what becomes of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use chv_sandbox::vmm::{Action, LeftAlone, Vmm, reclaim};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
use serde_json::{Value, json};
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
    assert_eq!(found[0].action, Action::Killed { pid: agent.vmm });
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
    // The parent-death signal does its work in its own time.
    wait_until_gone(agent.vmm);
    let vmm = Vmm::spawn(&fake::config(root.path(), "")).await.unwrap();
    assert!(!runs(agent.vmm));
    let left = agent.run_dir.exists().then(|| reclaim(root.path()));
    assert!(left.is_none(), "{left:?}");
    assert!(vmm.process().unwrap().holds_listener().unwrap());
}

#[tokio::test]
async fn what_a_living_agent_has_is_not_touched() {
    let root = tempdir().unwrap();
    let other = Agent::start(&fake::config(root.path(), ""));
    let ours = Vmm::spawn(&fake::config(root.path(), "")).await.unwrap();
    assert_eq!(reclaim(root.path()).unwrap(), []);
    assert!(runs(other.vmm) && other.run_dir.join("api.sock").exists());
    assert!(ours.process().unwrap().holds_listener().unwrap());
}

#[test]
fn a_process_that_only_looks_like_it_is_not_killed() {
    /// Changes one of the two files that tell who the VMM is.
    fn check(file: &str, change: impl FnOnce(&str) -> String) {
        let root = tempdir().unwrap();
        let mut agent = Agent::start(&fake::config(root.path(), "survive"));
        agent.kill();
        let path = agent.run_dir.join(file);
        let original = fs::read_to_string(&path).unwrap();
        let changed = change(&original);
        assert_ne!(changed, original);
        fs::write(&path, changed).unwrap();

        let found = reclaim(root.path()).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].action, Action::LeftAlone(LeftAlone::UnknownServer));
        assert!(runs(agent.vmm) && agent.run_dir.exists());

        fs::write(&path, original).unwrap();
        let found = reclaim(root.path()).unwrap();
        assert_eq!(found[0].action, Action::Killed { pid: agent.vmm });
    }
    fn check_record(field: &str, value: Value) {
        check("vmm.json", |original| {
            let mut record: Value = serde_json::from_str(original).unwrap();
            record[field] = value;
            record.to_string()
        });
    }

    check_record("boot_id", json!("another"));
    check_record("listener_inode", json!(1));
    check("vmm.json", |_| "{".to_owned());
    check("vmm.stat", |stat| {
        // Another process id, then another start time.
        stat.replacen(|byte: char| byte.is_ascii_digit(), "", 1)
    });
    check("vmm.stat", |stat| {
        let mut fields: Vec<_> = stat.split(' ').collect();
        let start_time = fields.len() - (52 - 21);
        fields[start_time] = "1";
        fields.join(" ")
    });
    check("vmm.stat", |_| String::new());
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
        // A socket file that nobody serves. It never listens: a process that another test is just starting would have
        // the listener, too, for a moment.
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(
            &socket,
            &SocketAddrUnix::new(run_dir.join("api.sock")).unwrap(),
        )
        .unwrap();
        fs::create_dir(run_dir.join("of the machine")).unwrap();
        fs::write(run_dir.join("of the machine/config.json"), "").unwrap();
    });
    check(|run_dir| {
        // A process that is there, and has nothing to do with it.
        let record = json!({
            "boot_id": fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim(),
            "listener_inode": 1,
            "binary": "vmm",
        });
        fs::write(run_dir.join("vmm.json"), record.to_string()).unwrap();
        let stat = fs::read("/proc/self/stat").unwrap();
        fs::write(run_dir.join("vmm.stat"), stat).unwrap();
    });
}

#[test]
fn what_is_not_ours_is_left_alone_and_reported() {
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
