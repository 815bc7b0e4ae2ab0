//! What a dead agent leaves, and what becomes of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use chv_sandbox::vmm::{Action, LeftAlone, Vmm, reclaim};
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
    assert!(!agent.run_dir.exists());
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

/// Changes the record of a survivor, says what then becomes of it, and clears it away.
fn check_record(change: impl FnOnce(&mut Value), expected: impl FnOnce(u32) -> Action) {
    let root = tempdir().unwrap();
    let mut agent = Agent::start(&fake::config(root.path(), "survive"));
    agent.kill();
    let path = agent.run_dir.join("vmm.json");
    let original = fs::read(&path).unwrap();
    let mut record = serde_json::from_slice(&original).unwrap();
    change(&mut record);
    fs::write(&path, record.to_string()).unwrap();

    let expected = expected(agent.vmm);
    let found = reclaim(root.path()).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].action, expected);
    let left_alone = matches!(expected, Action::LeftAlone(_));
    assert_eq!(runs(agent.vmm), left_alone);
    assert_eq!(agent.run_dir.exists(), left_alone);
    if left_alone {
        fs::write(&path, &original).unwrap();
        assert_eq!(
            reclaim(root.path()).unwrap()[0].action,
            Action::Killed { pid: agent.vmm }
        );
    }
}

#[test]
fn a_vmm_whose_id_was_not_recorded_yet_is_found_by_its_listener() {
    check_record(
        |record| record["vmm"] = Value::Null,
        |pid| Action::Killed { pid },
    );
}

#[test]
fn a_process_that_only_has_the_same_id_is_not_killed() {
    let unknown = |_| Action::LeftAlone(LeftAlone::UnknownServer);
    check_record(|record| record["vmm"]["start_time"] = json!(1), unknown);
    check_record(|record| record["listener_inode"] = json!(1), unknown);
    check_record(|record| record["boot_id"] = json!("another"), unknown);
    check_record(
        |record| {
            // Recorded in the window, by an agent that started after this process: it can't be its VMM.
            record["vmm"] = Value::Null;
            record["agent"]["start_time"] = json!(u64::MAX);
        },
        unknown,
    );
    check_record(|record| *record = json!("torn"), unknown);
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
        // A socket file that nobody serves.
        drop(std::os::unix::net::UnixListener::bind(run_dir.join("api.sock")).unwrap());
        fs::create_dir(run_dir.join("of the machine")).unwrap();
        fs::write(run_dir.join("of the machine/config.json"), "").unwrap();
    });
    check(|run_dir| {
        // A process id that somebody else has now.
        let record = json!({
            "boot_id": fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim(),
            "agent": {"pid": 1, "start_time": 0},
            "listener_inode": 1,
            "binary": "vmm",
            "vmm": {"pid": std::process::id(), "start_time": 1},
        });
        fs::write(run_dir.join("vmm.json"), record.to_string()).unwrap();
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
