//! What becomes of a spare that is killed while it waits, and of one whose disk somebody writes to.

use std::fs;
use std::path::PathBuf;

use chv_sandbox::machine::DiskRole;
use chv_sandbox::sandbox::{Event, Sandbox, SandboxState, Standby, Strategy, StrategyUsed};
use chv_sandbox::vmm::Exit;

use super::resets::{a_spare_waits, change_a_byte};
use super::traces::Traces;
use super::{Stage, Stopwatch, told};
use crate::real::{assert_nothing_left, kill, processes_with_files_in};

pub(super) async fn that_die_are_replaced(stage: &Stage) {
    let sandbox = stage.sandbox_with(Strategy::Standby(Standby::default()));
    let mut events = sandbox.subscribe();
    let watch = Stopwatch::start();
    sandbox.boot().await.unwrap();
    let clean = Traces::look(&sandbox).await;
    a_spare_waits(&mut events).await;

    let (serving, spare) = the_two(stage);
    kill(spare);
    let ended = told(&mut events, |event| match event {
        Event::SpareEnded(ended) => Some(ended.clone()),
        _ => None,
    });
    let ended = ended.await;
    assert_eq!((ended.pid, ended.exit), (spare, Exit::Signal(9)));
    a_spare_waits(&mut events).await;
    let report = clean.assert_comes_back(&sandbox).await.report;
    assert_eq!(report.strategy, StrategyUsed::Standby);
    assert!(!processes_with_files_in(&stage.vmm.run_root).contains(&spare));
    a_spare_waits(&mut events).await;
    watch.say("a spare was killed, another one served");

    // Somebody writes to the disk of a clone: that is no failure of a spare, it is a divergence.
    let (_, spare) = the_two(stage);
    assert_ne!(spare, serving);
    change_a_byte(&overlay_of(spare, stage));
    let error = sandbox.reset().await.unwrap_err();
    println!("the overlay of a spare was changed: {error}");
    assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE");
    let failed = error.failed_reset().unwrap();
    assert!(failed.evidence.is_some());
    let report = &failed.outcome.report;
    assert_eq!(report.strategy, StrategyUsed::Standby);
    assert_eq!(sandbox.state(), SandboxState::Failed);

    sandbox.shutdown().await;
    assert_nothing_left(stage.folder());
}

/// The VMM that serves, and the one that waits: it was started later.
fn the_two(stage: &Stage) -> (u32, u32) {
    let mut pids = processes_with_files_in(&stage.vmm.run_root);
    pids.sort_unstable();
    match pids[..] {
        [.., serving, spare] => (serving, spare),
        _ => panic!("not two VMMs: {pids:?}"),
    }
}

/// The file that this VMM has open for its overlay.
fn overlay_of(pid: u32, stage: &Stage) -> PathBuf {
    let name = format!("{}.img", DiskRole::Overlay);
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut files = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    files
        .find(|file| file.starts_with(&stage.vmm.run_root) && file.ends_with(&name))
        .expect("it has an overlay")
}
