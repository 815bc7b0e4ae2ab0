//! A spare that is killed while it waits, and a spare whose disk another process writes to.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use chv_sandbox::sandbox::{Event, Sandbox, Strategy, VmmUsed, WireState};
use chv_sandbox::vmm::Exit;

use super::resets::{a_spare_waits, change_a_byte};
use super::traces::Traces;
use super::{Stage, Stopwatch, told};
use crate::real::{assert_nothing_left, kill, processes_with_files_in};

pub(super) async fn that_die_are_replaced(stage: &Stage) {
    let sandbox = stage.sandbox_with(Strategy::Fresh, 1);
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
    assert_eq!(report.vmm, Some(VmmUsed::Spare));
    assert!(!processes_with_files_in(&stage.vmm.run_root).contains(&spare));
    a_spare_waits(&mut events).await;
    watch.say("a spare was killed, another one served");

    // Root writes to the disk of a spare through the VMM's own descriptor. The reset reports a divergence, not a failed
    // spare.
    let (_, spare) = the_two(stage);
    assert_ne!(spare, serving);
    change_a_byte(&overlay_of(spare, stage));
    let error = sandbox.reset().await.unwrap_err();
    println!("the overlay of a spare was changed: {error}");
    assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE");
    let failed = error.failed_reset().unwrap();
    assert!(failed.evidence.is_some());
    let report = &failed.outcome.report;
    assert_eq!(report.vmm, Some(VmmUsed::Spare));
    assert_eq!(sandbox.state().wire(), WireState::Failed);

    sandbox.shutdown().await;
    assert_nothing_left(stage.folder());
}

/// The pids of the VMM that serves and of the spare, which was started later.
fn the_two(stage: &Stage) -> (u32, u32) {
    let mut pids = processes_with_files_in(&stage.vmm.run_root);
    pids.sort_unstable();
    match pids[..] {
        [.., serving, spare] => (serving, spare),
        _ => panic!("not two VMMs: {pids:?}"),
    }
}

/// The nameless file that this VMM has open as its overlay, by one of its descriptors. The VMM's memory files have
/// another length.
fn overlay_of(pid: u32, stage: &Stage) -> PathBuf {
    let origin = fs::metadata(&stage.golden.disks()[1].origin).unwrap();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut files = open.map(|entry| entry.unwrap().path());
    let is_overlay = |file: &PathBuf| {
        let metadata = fs::metadata(file);
        metadata.is_ok_and(|it| it.is_file() && it.nlink() == 0 && it.len() == origin.len())
    };
    files.find(is_overlay).expect("it has an overlay")
}
