//! A verified reset and its report.

use chv_sandbox::golden::Golden;
use chv_sandbox::sandbox::{CheckOutcome, CheckSource, Reset, Sandbox, StrategyUsed};
use serde_json::{Value, json};

use super::Scene;

#[tokio::test]
async fn the_reset_state_has_the_shape_of_the_protocol() {
    let (scene, sandbox) = Scene::booted().await;
    let golden = Golden::open(&scene.path("golden")).unwrap();
    let Reset::Verified(outcome) = sandbox.reset().await.unwrap() else {
        panic!("it has baselines, so it is verified");
    };
    let mut state = serde_json::to_value(&outcome.state).unwrap();
    let time = state["reset_at"].take();
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    assert!(time > golden.manifest().minted_at);
    let fs_hash = golden.manifest().baselines.fs_hash.to_string();
    assert_eq!(
        state,
        json!({
            "reset_at": null,
            "golden_hash": fs_hash,
            "verification_passed": true,
            "verification_details": {
                "fs_hash": fs_hash,
                "fs_hash_baseline": fs_hash,
                "fs_hash_match": true,
                "open_fd_count": 12,
                "open_fd_count_baseline": 12,
                "vmm_api_state": "running",
                "expected_vmm_api_state": "running",
                "divergence_action": "none",
            },
        })
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn the_report_says_which_checks_were_made_and_which_do_not_apply() {
    let (_scene, sandbox) = Scene::booted().await;
    let reset = sandbox.reset().await.unwrap();
    let report = &reset.outcome().report;
    // Where the temporary directory has leases, the root is not read again.
    let root = match report.disks[0].bytes.basis.is_vouched_for() {
        true => CheckOutcome::VouchedFor,
        false => CheckOutcome::Agreed,
    };
    let checks: Vec<_> = report
        .checks
        .iter()
        .map(|check| (check.source, check.outcome))
        .collect();
    assert_eq!(
        checks,
        [
            (CheckSource::FsHash, root),
            (CheckSource::FsHash, CheckOutcome::Agreed),
            (CheckSource::OpenFdCount, CheckOutcome::Agreed),
            (CheckSource::VmmApiState, CheckOutcome::Agreed),
            // There is no process of a VMM to examine.
            (CheckSource::DiskIdentity, CheckOutcome::NotApplicable),
            (CheckSource::DiskIdentity, CheckOutcome::NotApplicable),
            (CheckSource::GuestNonce, CheckOutcome::Agreed),
            (CheckSource::GuestRandomness, CheckOutcome::Agreed),
            (CheckSource::GuestClock, CheckOutcome::Agreed),
            (CheckSource::VmmIdentity, CheckOutcome::NotApplicable),
            // No process of a VMM is known to have inherited the memory.
            (CheckSource::GuestMemory, CheckOutcome::NotApplicable),
        ]
    );
    assert_eq!(
        (report.strategy, report.attempt),
        (StrategyUsed::InPlace, 1)
    );
    assert!(report.reseeded && report.clock_set);
    let steps: Vec<_> = report.steps.iter().map(|step| step.name).collect();
    let expected = [
        "delete",
        "disks",
        "restore",
        "memory",
        "digest",
        "resume",
        "guest",
        "vm_state",
        "vmm_identity",
    ];
    assert_eq!(steps, expected);
    let steps: u64 = report.steps.iter().map(|step| step.micros).sum();
    assert!(report.micros >= steps, "the steps are parts of the whole");
    let json = serde_json::to_value(report).unwrap();
    assert_eq!(json["checks"][0]["source"], "fs_hash");
    assert_eq!(json["checks"][4]["outcome"], "not_applicable");
    assert_eq!(json["checks"][7]["source"], "guest_randomness");
    assert_eq!(json["checks"][8]["source"], "guest_clock");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_reset_asks_the_vmm_for_just_this() {
    let (scene, sandbox) = Scene::booted().await;
    sandbox.reset().await.unwrap();
    let expected = ["vm.delete", "vm.restore", "vm.resume", "vm.info"];
    assert_eq!(scene.vmm.take_asked(), expected);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn writes_of_the_guest_are_gone_and_never_reach_the_golden_copy() {
    let (scene, sandbox) = Scene::booted().await;
    let golden = std::fs::read(scene.path("golden/overlay.img")).unwrap();
    let working = scene.path("machine/overlay.img");
    super::flip_a_bit(&working);
    assert_ne!(std::fs::read(&working).unwrap(), golden, "it has changed");
    assert!(sandbox.reset().await.unwrap().is_verified());
    assert_eq!(std::fs::read(&working).unwrap(), golden);
    let config = std::fs::read(scene.path("machine/snapshot/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["disks"][1]["path"], working.to_str().unwrap());
    sandbox.shutdown().await;
}
