//! `chv-sandbox demo` on the recording, without a VMM.

use std::process::Command;

use chv_sandbox::sandbox::{DivergenceAction, ResetState};
use serde_json::Value;

#[test]
fn the_clean_reset_passes_and_the_tampered_one_halts() {
    let output = Command::new(env!("CARGO_BIN_EXE_chv-sandbox"))
        .args(["demo", "--json"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results["passed"], true);
    assert_eq!(results["tool"]["stdout"], "hello from the guest\n");

    let state = |reset: &str| -> ResetState {
        serde_json::from_value(results[reset]["state"].clone()).unwrap()
    };
    let clean = state("clean_reset");
    assert!(clean.verification_passed && clean.verification_details.fs_hash_match);
    assert_eq!(clean.golden_hash, clean.verification_details.fs_hash);

    let tampered = state("tampered_reset");
    let details = &tampered.verification_details;
    assert!(!tampered.verification_passed && !details.fs_hash_match);
    assert_eq!(details.divergence_action, DivergenceAction::Halt);
    // The other two sources agree. They don't outvote the one that disagrees.
    assert_eq!(details.open_fd_count, details.open_fd_count_baseline);
    assert_eq!(details.vmm_api_state, details.expected_vmm_api_state);

    // Checks that a recording can't make are not reported as passed.
    let checks = results["clean_reset"]["report"]["checks"]
        .as_array()
        .unwrap();
    let identity = checks
        .iter()
        .filter(|check| check["source"] == "disk_identity");
    assert!(identity.clone().count() > 0);
    assert!(
        identity
            .clone()
            .all(|check| check["outcome"] == "not_applicable")
    );
}
