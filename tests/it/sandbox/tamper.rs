//! Readings that a reset must not believe: one source that disagrees is enough, whatever the other sources say.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chv_sandbox::guest::stand_in::Behaviour;
use chv_sandbox::sandbox::{
    CheckOutcome, CheckSource, DivergenceAction, Sandbox, VmmApiState, WireState,
};
use serde_json::Value;

use super::script::Act;
use super::{Scene, assert_halted, flip_a_bit};

/// Checks that a reset after `tamper` diverges, with exactly these sources disagreeing.
async fn check(tamper: impl FnOnce(&Scene), sources: &[CheckSource]) {
    let (scene, sandbox) = Scene::booted().await;
    sandbox.reset().await.unwrap();
    tamper(&scene);
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE");
    assert_eq!(sandbox.state().wire(), WireState::Failed);

    let failed = error.failed_reset().unwrap();
    let state = &failed.outcome.state;
    assert!(!state.verification_passed);
    let action = state.verification_details.divergence_action;
    assert_eq!(action, DivergenceAction::Halt);
    let disagree = failed.outcome.report.checks.iter();
    let disagree = disagree.filter(|check| check.outcome == CheckOutcome::Disagreed);
    let disagree: Vec<_> = disagree.map(|check| check.source).collect();
    assert_eq!(disagree, sources, "{error}");
    assert_eq!(
        failed.outcome.report.attempt, 1,
        "a source that disagrees isn't asked again"
    );

    let evidence = failed.evidence.as_deref().expect("the evidence is kept");
    assert!(evidence.starts_with(scene.path("evidence")));
    let files = [
        "reset.json",
        "events.log",
        "vmm.log",
        "console.log",
        "overlay.img",
    ];
    for name in files {
        let mode = fs::metadata(evidence.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let mode = fs::metadata(evidence).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(
        fs::read(evidence.join("overlay.img")).unwrap(),
        fs::read(scene.path("machine/overlay.img")).unwrap(),
        "the overlay is kept as it was found"
    );
    let record: Value =
        serde_json::from_slice(&fs::read(evidence.join("reset.json")).unwrap()).unwrap();
    assert_eq!(record["state"], serde_json::to_value(state).unwrap());
    let events = fs::read_to_string(evidence.join("events.log")).unwrap();
    assert!(events.contains("state resetting"), "{events}");
    assert!(!evidence.join("missing.txt").exists());
    assert_eq!(scene.vmm.state(), Some("Paused"), "nothing goes on in it");

    assert_halted(&sandbox).await;
    scene.assert_machine_is_empty();
}

#[tokio::test]
async fn several_at_once() {
    let all = |scene: &Scene| {
        flip_a_bit(&scene.path("root.img"));
        flip_a_bit(&scene.path("golden/overlay.img"));
        scene.guest.set_open_files(99);
        scene.guest.forget().unwrap();
        scene.vmm.on("vm.resume", 1, Act::Pretend);
    };
    let sources = [
        CheckSource::FsHash,
        CheckSource::FsHash,
        CheckSource::OpenFdCount,
        CheckSource::VmmApiState,
        CheckSource::GuestNonce,
    ];
    check(all, &sources).await;
}

#[tokio::test]
async fn the_reset_state_names_the_sources_that_disagreed() {
    let (scene, sandbox) = Scene::booted().await;
    flip_a_bit(&scene.path("root.img"));
    scene.guest.set_open_files(13);
    scene.vmm.on("vm.resume", 1, Act::Pretend);
    let error = sandbox.reset().await.unwrap_err();
    let details = &error
        .failed_reset()
        .unwrap()
        .outcome
        .state
        .verification_details;
    assert!(!details.fs_hash_match);
    assert_ne!(
        details.fs_hash, details.fs_hash_baseline,
        "they are the root's"
    );
    assert_eq!(
        (details.open_fd_count, details.open_fd_count_baseline),
        (13, 12)
    );
    assert_eq!(details.vmm_api_state, VmmApiState::Paused);
    assert_eq!(details.expected_vmm_api_state, VmmApiState::Running);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_disagreement_counts_more_than_a_silence() {
    let mut scene = Scene::minted().await;
    scene.hurry();
    let sandbox = scene.sandbox();
    sandbox.boot().await.unwrap();
    flip_a_bit(&scene.path("root.img"));
    scene.guest.behave(Behaviour::Silent);
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE");
    assert_eq!(error.failed_reset().unwrap().outcome.report.attempt, 1);
    assert_halted(&sandbox).await;
}

#[tokio::test]
async fn a_boot_refuses_files_that_differ_from_the_manifest_before_anything_is_restored() {
    let scene = Scene::minted().await;
    flip_a_bit(&scene.path("root.img"));
    let sandbox = scene.sandbox();
    let error = sandbox.boot().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
    let text = crate::sandbox::chain(&error);
    assert!(text.contains("disks[0].fsverity"), "{text}");
    let remedy = "put the file back as it was, or mint the golden snapshot again";
    assert!(text.contains(remedy), "it says what to do: {text}");
    scene.assert_machine_is_empty();

    flip_a_bit(&scene.path("root.img"));
    sandbox.boot().await.unwrap();
    sandbox.shutdown().await;
}

#[tokio::test]
async fn evidence_that_cannot_be_kept_changes_nothing_of_the_halt() {
    let scene = Scene::minted().await;
    let golden = scene.golden();
    let config = scene.config_of(golden.evidence_dir(scene.path("kernel").join("no folder")));
    let sandbox = scene.sandbox_of(config);
    sandbox.boot().await.unwrap();
    scene.guest.set_open_files(13);
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE");
    assert!(error.failed_reset().unwrap().evidence.is_none());
    assert_halted(&sandbox).await;
}

pub(super) fn set_length(path: PathBuf, length: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

/// Makes zeros of some pages in the middle of a file without changing its length.
pub(super) fn punch_a_hole(path: &Path) {
    use rustix::fs::{FallocateFlags, fallocate};

    let file = File::options().write(true).open(path).unwrap();
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(&file, flags, 0x4000, 0x2000) {
        // On a file system without holes, zeros are written instead.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            std::os::unix::fs::FileExt::write_all_at(&file, &[0; 0x2000], 0x4000).unwrap();
        }
        punched => punched.unwrap(),
    }
}

#[tokio::test]
async fn evidence_of_many_divergences_leaves_out_the_disks() {
    let (scene, sandbox) = Scene::booted().await;
    for number in 0..16 {
        fs::create_dir_all(scene.path("evidence").join(number.to_string())).unwrap();
    }
    scene.guest.set_open_files(13);
    let error = sandbox.reset().await.unwrap_err();
    let evidence = error.failed_reset().unwrap().evidence.as_ref().unwrap();
    assert!(evidence.join("reset.json").exists());
    assert!(!evidence.join("overlay.img").exists());
    let missing = fs::read_to_string(evidence.join("missing.txt")).unwrap();
    assert!(
        missing.contains("16 folders of evidence already"),
        "{missing}"
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn evidence_without_its_disk_is_kept_and_says_so() {
    let (scene, sandbox) = Scene::booted().await;
    scene.guest.set_open_files(13);
    let overlay = scene.path("machine/overlay.img");
    // The overlay is removed once the reset has read it, so there is nothing left to copy as evidence.
    let remove = move || fs::remove_file(overlay).unwrap();
    scene.vmm.before("vm.pause", remove);
    let error = sandbox.reset().await.unwrap_err();
    let evidence = error.failed_reset().unwrap().evidence.as_ref().unwrap();
    assert!(evidence.join("reset.json").exists());
    let missing = fs::read_to_string(evidence.join("missing.txt")).unwrap();
    assert!(missing.starts_with("the disks: "), "{missing}");
    sandbox.shutdown().await;
}
