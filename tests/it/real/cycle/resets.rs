//! Reset after reset, each verified, until one byte of the disk that nothing puts back is changed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use chv_sandbox::overlay::{self, AccessPolicy};
use chv_sandbox::sandbox::{DivergenceAction, Error, FsHash, Reset, Sandbox, SandboxState};

use super::figures::{Figures, Usage};
use super::traces::Traces;
use super::{Stage, Stopwatch};
use crate::real::setting;

/// After so many the allocator and the runtime have what they need.
const WARM: u32 = 10;

pub(super) async fn are_verified_until_a_byte_is_changed(stage: &Stage) {
    let count = setting("CHV_SANDBOX_RESETS", 100);
    let sandbox = stage.sandbox();
    let watch = Stopwatch::start();
    sandbox.boot().await.unwrap();
    watch.say("booted");

    let clean = Traces::look(&sandbox).await;
    let mut figures = Figures::default();
    let mut warm = Usage::now();
    for n in 0..count {
        if n == WARM {
            warm = Usage::now();
        }
        Traces::leave(&sandbox).await;
        Traces::look(&sandbox).await.assert_left(&clean);
        let reset = sandbox.reset().await;
        let reset = reset.unwrap_or_else(|error| panic!("reset {n}: {error:?}"));
        let Reset::Verified(outcome) = reset else {
            panic!("reset {n} verified nothing");
        };
        assert!(outcome.state.verification_passed);
        figures.add(&outcome.report);
        Traces::look(&sandbox).await.assert_gone(&clean);
    }
    let release = &stage.golden.manifest().release;
    println!(
        "{count} resets on {release}, each verified, each of a guest with a file, a process and memory left behind"
    );
    println!("{figures}");
    warm.assert_memory_is_flat();

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

    assert_eq!(sandbox.state(), SandboxState::Failed);
    let again = sandbox.reset().await.unwrap_err();
    assert!(matches!(again, Error::NotReady { halted: true, .. }));
    sandbox.shutdown().await;
    assert_eq!(sandbox.state(), SandboxState::NotBooted);
}

fn change_a_byte(disk: &Path) {
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
