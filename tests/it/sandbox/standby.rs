//! A waiting spare that is no longer as it was prepared: what a reset does, by what happened to the spare.

use std::sync::Arc;

use chv_sandbox::sandbox::{CheckOutcome, CheckSource, Event, Sandbox, VmmUsed};

use super::script::Act;
use super::spares::Cast;
use super::stage::Spawned;
use super::{assert_halted, chain, flip_a_bit, told};

/// Something that happens to a waiting spare.
type Happening = fn(&Cast, &Arc<Spawned>);

/// Events that make a spare unfit to serve, with a part of the reason that is reported.
const UNFIT: [(&str, Happening, &str); 8] = [
    (
        "its VM was resumed",
        |_, spare| spare.player.set_state("Running"),
        "is Running, not paused",
    ),
    (
        "it ran, and was paused again",
        |_, spare| {
            ["resuming", "resumed", "pausing", "paused"]
                .map(|it| spare.tell("vm", it))
                .into_iter()
                .collect()
        },
        "resuming of vm",
    ),
    (
        "its guest panicked",
        |_, spare| spare.tell("guest", "panic"),
        "panic of guest",
    ),
    (
        "its VM was deleted",
        |_, spare| spare.player.end(),
        "report the VM's state",
    ),
    (
        "it dies when it is looked at",
        |cast, spare| {
            let spare = Arc::clone(spare);
            cast.scene.vmm.before("vm.info", move || spare.kill());
        },
        "the VMM died when it was asked to report the VM's state",
    ),
    (
        "it dies when it is awakened",
        |cast, spare| {
            let spare = Arc::clone(spare);
            cast.scene.vmm.before("vm.resume", move || spare.kill());
        },
        "the VMM died when it was asked to resume the VM",
    ),
    (
        "it isn't awakened",
        |cast, _| cast.scene.vmm.on("vm.resume", 1, Act::Refuse),
        "did not resume the VM",
    ),
    (
        "it gives no answer",
        |cast, _| cast.scene.vmm.on("vm.resume", 1, Act::Close),
        "did not resume the VM",
    ),
];

#[tokio::test]
async fn a_spare_that_cannot_serve_is_reported_and_a_new_vmm_serves() {
    for (what, happening, expected) in UNFIT {
        let (mut cast, spare) = Cast::waiting().await;
        happening(&cast, &spare);
        cast.reset_by(VmmUsed::New).await;
        let refused = told(&mut cast.events, |event| match event {
            Event::SpareRefused(error) => Some(chain(error)),
            _ => None,
        });
        let refused = refused.await;
        assert!(refused.contains(expected), "{what}: {refused}");
        cast.spare_is_ready().await;
        cast.reset_by(VmmUsed::Spare).await;
        cast.leaves_nothing().await;
    }
}

/// Events that the comparison with the baselines has to find, with the sources that disagree.
const DIVERGENT: [(&str, Happening, &[CheckSource]); 5] = [
    (
        "a byte of its overlay",
        |_, spare| flip_a_bit(&spare.overlay().unwrap()),
        &[CheckSource::FsHash],
    ),
    (
        "its overlay has lost its end",
        |_, spare| super::tamper::set_length(spare.overlay().unwrap(), 0x8000),
        &[CheckSource::FsHash],
    ),
    (
        "its overlay has a hole",
        |_, spare| super::tamper::punch_a_hole(&spare.overlay().unwrap()),
        &[CheckSource::FsHash],
    ),
    (
        "a byte of the read-only root",
        |cast, _| flip_a_bit(&cast.scene.path("root.img")),
        &[CheckSource::FsHash],
    ),
    (
        "a descriptor more in its guest",
        |cast, _| cast.scene.guest.set_open_files(13),
        &[CheckSource::OpenFdCount],
    ),
];

#[tokio::test]
async fn a_spare_that_disagrees_with_a_baseline_halts() {
    for (what, happening, sources) in DIVERGENT {
        let (cast, spare) = Cast::waiting().await;
        happening(&cast, &spare);
        let error = cast.sandbox.reset().await.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE", "{what}: {error}");
        let failed = error.failed_reset().unwrap();
        assert_eq!(failed.outcome.report.vmm, Some(VmmUsed::Spare));
        let checks = failed.outcome.report.checks.iter();
        let disagree = checks.filter(|check| check.outcome == CheckOutcome::Disagreed);
        let disagree: Vec<_> = disagree.map(|check| check.source).collect();
        assert_eq!(disagree, sources, "{what}: {error}");
        assert!(failed.evidence.is_some(), "{what}");
        assert_halted(&cast.sandbox).await;
        cast.stage.assert_empty();
    }
}
