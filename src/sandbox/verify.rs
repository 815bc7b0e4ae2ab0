//! [`verify`]: compares the readings of a reverted machine with the golden snapshot's baselines. There is no quorum:
//! one check that disagrees decides.

use jiff::Timestamp;

use super::guest_checks::{self, GuestChecks};
use super::reset_report::VerificationContext;
use super::{
    CheckOutcome, CheckSource, DivergenceAction, FsHash, ResetCheck, ResetOutcome, ResetReport,
    ResetState, VerificationDetails, VmmApiState,
};
use crate::causes::Causes;
use crate::golden::{GoldenDisk, Manifest, vmm_api_state};
use crate::machine::{DiskProof, MemoryReading, OpenInVmm, Reading, Readings};
use crate::overlay::Basis;

/// The result of all checks together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No check disagreed, and none was silent.
    Passed,
    /// At least one check disagreed.
    Diverged,
    /// No check disagreed, and at least one was silent.
    Silent,
}

/// The verdict, with the outcome that a reset reports.
#[derive(Debug)]
pub(super) struct Verification {
    pub(super) verdict: Verdict,
    pub(super) outcome: ResetOutcome,
}

/// Compares `readings` with the baselines in the golden snapshot's manifest.
pub(super) fn verify(
    readings: Readings,
    manifest: &Manifest,
    context: &VerificationContext<'_>,
) -> Verification {
    let mut checks: Vec<ResetCheck> = Vec::with_capacity(10);
    let disks = || readings.disks.iter().zip(&manifest.disks);
    checks.extend(disks().map(|(disk, golden)| check_digest(disk, golden)));
    checks.push(check_fd_count(&readings, manifest));
    checks.push(check_vm_state(&readings, manifest));
    checks.extend(readings.disks.iter().map(check_identity));
    let guest = GuestChecks {
        nonce: manifest.guest.nonce.as_deref(),
        guest: &readings.guest,
        older: context.older_guest,
    };
    checks.extend(guest.all());
    checks.push(check_vmm(&readings));
    checks.push(check_memory(&readings.memory));

    let any = |outcome| checks.iter().any(|check| check.outcome == outcome);
    let verdict = match (any(CheckOutcome::Disagreed), any(CheckOutcome::Silent)) {
        (true, _) => Verdict::Diverged,
        (false, true) => Verdict::Silent,
        (false, false) => Verdict::Passed,
    };
    let guest = readings.guest.answered();
    let report = ResetReport {
        strategy: context.strategy,
        vmm: Some(context.vmm),
        memory: Some(context.memory.clone()),
        attempt: context.attempt,
        layers: context.layers.to_vec(),
        disks: readings.disks.clone(),
        vmm_identity: readings.vmm.clone().and_then(Result::ok),
        micros: context.steps.micros(),
        steps: context.steps.so_far().to_vec(),
        reseeded: guest.is_some_and(guest_checks::reseeded),
        clock_set: guest.is_some_and(guest_checks::clock_set),
        clock: guest.and_then(|guest| guest.clock),
        checks,
    };
    Verification {
        verdict,
        outcome: ResetOutcome {
            state: reset_state(&readings, manifest, verdict),
            report,
        },
    }
}

/// Whether the disk has the length and the digests that the manifest says.
fn agrees(disk: &DiskProof, golden: &GoldenDisk) -> bool {
    let found = disk.bytes.digest;
    found.sha256 == golden.sha256
        && disk.bytes.length == golden.length
        && found.fsverity.is_none_or(|it| it == golden.fsverity)
}

fn check_digest(disk: &DiskProof, golden: &GoldenDisk) -> ResetCheck {
    let same = agrees(disk, golden);
    let show = |digest, length| format!("{} disk {digest}, {length} bytes", disk.role);
    let (outcome, found) = match disk.bytes.basis {
        Basis::Leased if same => (
            CheckOutcome::VouchedFor,
            "not read: a read lease has held since it was compared".to_owned(),
        ),
        Basis::KernelVerity if same => (
            CheckOutcome::VouchedFor,
            "not read: fs-verity protects it with the manifest's digest".to_owned(),
        ),
        _ => {
            let found = show(disk.bytes.digest.sha256, disk.bytes.length);
            (agreed(same), found)
        }
    };
    ResetCheck {
        source: CheckSource::FsHash,
        outcome,
        expected: show(golden.sha256, golden.length),
        found,
    }
}

fn check_fd_count(readings: &Readings, manifest: &Manifest) -> ResetCheck {
    let baseline = manifest.baselines.open_fd_count;
    let (outcome, found) = match &readings.guest {
        Reading::Answered(guest) => (
            agreed(guest.open_fd_count == baseline),
            guest.open_fd_count.to_string(),
        ),
        Reading::Silent(why) => (CheckOutcome::Silent, Causes(&**why).to_string()),
    };
    ResetCheck {
        source: CheckSource::OpenFdCount,
        outcome,
        expected: baseline.to_string(),
        found,
    }
}

fn check_vm_state(readings: &Readings, manifest: &Manifest) -> ResetCheck {
    let baseline = manifest.baselines.vmm_api_state;
    let (outcome, found) = match &readings.vm_state {
        Reading::Answered(state) => {
            let state = vmm_api_state(state);
            (agreed(state == baseline), format!("{state:?}"))
        }
        Reading::Silent(why) => (CheckOutcome::Silent, Causes(&**why).to_string()),
    };
    ResetCheck {
        source: CheckSource::VmmApiState,
        outcome,
        expected: format!("{baseline:?}"),
        found,
    }
}

fn check_identity(disk: &DiskProof) -> ResetCheck {
    let (outcome, found) = match disk.open_in_vmm {
        OpenInVmm::Yes => (CheckOutcome::Agreed, "the same file"),
        OpenInVmm::No => (CheckOutcome::Disagreed, "another file"),
        OpenInVmm::NotApplicable => (CheckOutcome::NotApplicable, "no VMM process to look into"),
    };
    ResetCheck {
        source: CheckSource::DiskIdentity,
        outcome,
        expected: format!("the VMM has opened the {} disk that was hashed", disk.role),
        found: found.to_owned(),
    }
}

/// A VMM whose identity can't be proved counts as a disagreement, not as silence, so the reset is not made once more.
fn check_vmm(readings: &Readings) -> ResetCheck {
    let (outcome, found) = match &readings.vmm {
        None => (
            CheckOutcome::NotApplicable,
            "no VMM process to look into".to_owned(),
        ),
        Some(Ok(vmm)) => (CheckOutcome::Agreed, format!("it is, with pid {}", vmm.pid)),
        Some(Err(why)) => (CheckOutcome::Disagreed, Causes(&**why).to_string()),
    };
    ResetCheck {
        source: CheckSource::VmmIdentity,
        outcome,
        expected: "the VMM that was started answers on the api-socket".to_owned(),
        found,
    }
}

/// The check of the guest's memory. A lease that was lost during a copy is an error of the revert. So the lease of
/// every reading here has held.
fn check_memory(memory: &MemoryReading) -> ResetCheck {
    let (outcome, found) = match memory {
        MemoryReading::Mapped {
            found: Ok(()),
            bytes,
            ..
        } => (
            CheckOutcome::Agreed,
            format!("the VMM maps all {bytes} bytes of it privately"),
        ),
        MemoryReading::Mapped {
            found: Err(why), ..
        } => (CheckOutcome::Disagreed, why.to_string()),
        MemoryReading::Copied {
            protection: Some(_),
        } => (
            CheckOutcome::VouchedFor,
            "the VMM copied it from a file that cannot change".to_owned(),
        ),
        MemoryReading::Copied { protection: None } => (
            CheckOutcome::VouchedFor,
            "the VMM copied it under a read lease that held until the copy was complete".to_owned(),
        ),
        MemoryReading::ByPath => (
            CheckOutcome::NotApplicable,
            "a VMM that another program runs read it by its path".to_owned(),
        ),
    };
    ResetCheck {
        source: CheckSource::GuestMemory,
        outcome,
        expected: "the VM has the golden snapshot's memory".to_owned(),
        found,
    }
}

fn reset_state(readings: &Readings, manifest: &Manifest, verdict: Verdict) -> ResetState {
    let mut disks = readings.disks.iter().zip(&manifest.disks);
    let differs = |(disk, golden): &(&DiskProof, &GoldenDisk)| !agrees(disk, golden);
    // The report has room for one disk: the first that disagrees, or else the last one, which is the overlay if there
    // is one.
    let (disk, golden) = disks
        .clone()
        .find(differs)
        .or_else(|| disks.next_back())
        .expect("a machine has a root disk");
    let guest = readings.guest.answered();
    let vmm_api_state = readings
        .vm_state
        .answered()
        .map_or(VmmApiState::Error, vmm_api_state);
    let passed = verdict == Verdict::Passed;
    ResetState {
        reset_at: Timestamp::now(),
        golden_hash: FsHash::Digest(manifest.baselines.fs_hash),
        verification_passed: passed,
        verification_details: VerificationDetails {
            fs_hash: FsHash::Digest(disk.bytes.digest.sha256),
            fs_hash_baseline: FsHash::Digest(golden.sha256),
            fs_hash_match: agrees(disk, golden),
            open_fd_count: guest.map_or(0, |guest| guest.open_fd_count),
            open_fd_count_baseline: manifest.baselines.open_fd_count,
            vmm_api_state,
            expected_vmm_api_state: manifest.baselines.vmm_api_state,
            divergence_action: match passed {
                true => DivergenceAction::None,
                false => DivergenceAction::Halt,
            },
        },
    }
}

fn agreed(same: bool) -> CheckOutcome {
    match same {
        true => CheckOutcome::Agreed,
        false => CheckOutcome::Disagreed,
    }
}
