//! Resets by each strategy, each verified, until the test changes one byte of the read-only disk.
//! `CHV_SANDBOX_STRATEGY` limits the test to one kind of VMM: `reused`, `new` or `spare`.

use std::env;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use chv_sandbox::broadcast::Receiver;
use chv_sandbox::overlay::{self, AccessPolicy};
use chv_sandbox::sandbox::{
    ChvSandbox, DivergenceAction, Error, Event, FsHash, Sandbox, Strategy, VmmUsed, WireState,
};

use super::figures::{Figures, Usage};
use super::traces::Traces;
use super::{Stage, Stopwatch, told};
use crate::real::{assert_nothing_left, setting};

/// After this number of resets the allocator and the runtime have allocated what they keep.
const WARM: u32 = 10;

pub(super) async fn are_verified_until_a_byte_is_changed(stage: &Stage) {
    let only = env::var("CHV_SANDBOX_STRATEGY").ok();
    let strategies = [
        (VmmUsed::Reused, Strategy::InPlace, 0),
        (VmmUsed::New, Strategy::Fresh, 0),
        (VmmUsed::Spare, Strategy::Fresh, 1),
    ];
    for (used, strategy, spares) in strategies {
        if only.as_deref().is_none_or(|only| only == used.to_string()) {
            let sandbox = stage.sandbox_with(strategy, spares);
            are_verified(stage, &sandbox, used).await;
            a_changed_byte_halts(stage, &sandbox).await;
            // The byte is changed back. Only the bytes count, so the disk is as it was.
            change_a_byte(&stage.golden.disks()[0].origin);
            assert_nothing_left(stage.folder());
        }
    }
}

async fn are_verified(stage: &Stage, sandbox: &ChvSandbox, used: VmmUsed) {
    let count = setting("CHV_SANDBOX_RESETS", 100);
    let mut events = sandbox.subscribe();
    let watch = Stopwatch::start();
    sandbox.boot().await.unwrap();
    watch.say(format!("{used}: booted"));

    let clean = Traces::look(sandbox).await;
    let mut figures = Figures::default();
    let mut warm = Usage::now();
    for n in 0..count {
        if n == WARM {
            warm = Usage::now();
        }
        if used == VmmUsed::Spare {
            a_spare_waits(&mut events).await;
        }
        let report = clean.assert_comes_back(sandbox).await.report;
        assert_eq!(report.vmm, Some(used));
        figures.add(&report);
    }
    let release = &stage.golden.manifest().release;
    println!(
        "{used}: {count} resets on {release}, each verified, each of a guest with a file, a process and memory left behind"
    );
    println!("{figures}");
    if count > WARM {
        warm.assert_memory_is_flat();
    }
    if used == VmmUsed::Spare {
        a_spare_waits(&mut events).await;
    }
}

pub(super) async fn a_spare_waits(events: &mut Receiver<Event>) {
    told(events, |event| match event {
        Event::SpareReady => Some(()),
        Event::SpareFailed(error) => panic!("{error:?}"),
        _ => None,
    })
    .await;
}

/// Changes one byte of the read-only disk while the sandbox is ready.
async fn a_changed_byte_halts(stage: &Stage, sandbox: &ChvSandbox) {
    let root = &stage.golden.disks()[0].origin;
    change_a_byte(root);
    let error = sandbox.reset().await.unwrap_err();
    println!("one byte of the root disk changed: {error}");
    assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE");
    let failed = error.failed_reset().unwrap();
    let details = &failed.outcome.state.verification_details;
    assert!(!failed.outcome.state.verification_passed && !details.fs_hash_match);
    assert_eq!(details.divergence_action, DivergenceAction::Halt);
    let found = overlay::sha256(root, AccessPolicy::ReadOnly).unwrap();
    assert_eq!(details.fs_hash, FsHash::Digest(found.digest));
    let evidence = failed.evidence.as_deref().unwrap();
    assert!(evidence.starts_with(stage.evidence()));
    for file in ["reset.json", "overlay.img"] {
        let kept = fs::metadata(evidence.join(file)).unwrap();
        assert!(kept.len() > 0, "{file}");
    }

    assert_eq!(sandbox.state().wire(), WireState::Failed);
    let again = sandbox.reset().await.unwrap_err();
    assert!(matches!(again, Error::Halted { .. }));
    sandbox.shutdown().await;
    assert_eq!(sandbox.state().wire(), WireState::NotBooted);
}

pub(super) fn change_a_byte(disk: &Path) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(disk)
        .unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[!byte[0]], middle).unwrap();
}
