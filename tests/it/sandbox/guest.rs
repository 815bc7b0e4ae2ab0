//! The restored guest: what it has to renew, and how a sandbox treats a guest that can't.

use std::sync::Arc;
use std::time::Duration;

use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{ErrorEvent, Extension, Frame, Hello, Renew, Renewed};
use chv_sandbox::guest::stand_in::{Behaviour, Intercept};
use chv_sandbox::sandbox::{
    BootFailure, CheckOutcome, CheckSource, ChvSandbox, Error, OlderGuest, ResetCheck, ResetReport,
    Sandbox,
};

use super::{Scene, assert_echoed, assert_halted, echo};

const RENEWED: [CheckSource; 2] = [CheckSource::GuestRandomness, CheckSource::GuestClock];

fn intercepted(answer: impl Fn(&Frame) -> Option<Frame> + Send + Sync + 'static) -> Behaviour {
    let intercept: Intercept =
        Arc::new(move |frame| answer(frame).map(|answer| encode(&answer).unwrap()));
    Behaviour::Intercepted(intercept)
}

/// A guest whose answer to a renewal is an honest one, changed by `renewed`.
fn renewing(renewed: impl Fn(&Renew, &mut Renewed) + Send + Sync + 'static) -> Behaviour {
    intercepted(move |frame| {
        let Frame::Renew(renew) = frame else {
            return None;
        };
        let mut honest = Renewed {
            request_id: renew.request_id,
            nonce: None,
            reseeded: true,
            clock_set: true,
            clock_offset_ms: 0,
            unix_nanos: Some(renew.unix_nanos),
        };
        renewed(renew, &mut honest);
        Some(Frame::Renewed(honest))
    })
}

/// A guest that is older than the greeting (`Hello`).
fn old() -> Behaviour {
    intercepted(|frame| {
        let unknown = ErrorEvent {
            code: "SANDBOX_VSOCK_PROTOCOL_ERROR".to_owned(),
            message: "unknown frame".to_owned(),
        };
        matches!(frame, Frame::Hello(_)).then_some(Frame::ErrorEvent(unknown))
    })
}

#[track_caller]
fn check_of(report: &ResetReport, source: CheckSource) -> &ResetCheck {
    let check = report.checks.iter().find(|check| check.source == source);
    check.unwrap()
}

#[track_caller]
fn outcomes<const N: usize>(report: &ResetReport, sources: [CheckSource; N]) -> [CheckOutcome; N] {
    sources.map(|source| check_of(report, source).outcome)
}

/// Checks that a reset to a guest with this behaviour passes.
async fn passes(behaviour: Behaviour) {
    let (scene, sandbox) = Scene::booted().await;
    scene.guest.behave(behaviour);
    let reset = sandbox.reset().await.unwrap();
    assert!(reset.is_verified());
    let report = &reset.outcome().report;
    assert_eq!(outcomes(report, RENEWED), [CheckOutcome::Agreed; 2]);
    sandbox.shutdown().await;
}

/// Checks that a reset to a guest with this behaviour halts, and that `source` is the only one that disagrees.
async fn diverges(behaviour: Behaviour, source: CheckSource) -> ResetCheck {
    let (scene, sandbox) = Scene::booted().await;
    scene.guest.behave(behaviour);
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE");
    let outcome = &error.failed_reset().unwrap().outcome;
    assert!(!outcome.state.verification_passed);
    let disagreed = outcome.report.checks.iter();
    let disagreed = disagreed.filter(|check| check.outcome == CheckOutcome::Disagreed);
    let disagreed: Vec<_> = disagreed.map(|check| check.source).collect();
    assert_eq!(disagreed, [source]);
    let check = check_of(&outcome.report, source).clone();
    assert_halted(&sandbox).await;
    check
}

const HOUR: u64 = 3_600_000_000_000;

#[tokio::test]
async fn a_clock_that_is_certainly_wrong_halts() {
    let behind = renewing(|renew, renewed| renewed.unix_nanos = Some(renew.unix_nanos - HOUR));
    let check = diverges(behind, CheckSource::GuestClock).await;
    assert!(check.expected.contains("within 50ms"), "{check:?}");
    assert!(check.found.starts_with("off by 3600"), "{check:?}");
    let ahead = renewing(|renew, renewed| renewed.unix_nanos = Some(renew.unix_nanos + HOUR));
    diverges(ahead, CheckSource::GuestClock).await;
    // The guest says that it set its clock, and shows a time that proves it did not.
    let never = renewing(|_, renewed| renewed.unix_nanos = Some(0));
    diverges(never, CheckSource::GuestClock).await;
}

#[tokio::test]
async fn a_clock_that_may_be_right_passes() {
    passes(renewing(|_, _| {})).await;
    let within = Duration::from_millis(49).as_nanos() as u64;
    passes(renewing(move |renew, renewed| {
        renewed.unix_nanos = Some(renew.unix_nanos + within);
    }))
    .await;
    // The guest did not set its clock, and the clock is right.
    passes(renewing(|_, renewed| renewed.clock_set = false)).await;
}

#[tokio::test]
async fn a_long_round_trip_leaves_room_for_as_much() {
    let slow = Duration::from_millis(200);
    passes(renewing(move |renew, renewed| {
        // The guest reads its clock at once, and the answer takes this long. The clock is off by less than that time.
        std::thread::sleep(slow);
        renewed.unix_nanos = Some(renew.unix_nanos + slow.as_nanos() as u64);
    }))
    .await;
}

#[tokio::test]
async fn a_guest_that_could_not_renew_halts() {
    let unseeded = renewing(|_, renewed| renewed.reseeded = false);
    diverges(unseeded, CheckSource::GuestRandomness).await;
    let unset = renewing(|_, renewed| {
        renewed.clock_set = false;
        renewed.unix_nanos = None;
    });
    diverges(unset, CheckSource::GuestClock).await;
}

/// The result of the boot of a sandbox with this configuration, on a guest that was always old.
async fn boot_with(behaviour: Behaviour, older_guest: OlderGuest) -> (Scene, ChvSandbox) {
    let scene = Scene::new();
    scene.guest.behave(behaviour);
    scene.mint().await.unwrap();
    let sandbox = scene.sandbox_of(scene.config_of(scene.golden().older_guest(older_guest)));
    (scene, sandbox)
}

#[tokio::test]
async fn a_guest_older_than_the_greeting_passes_unless_it_is_refused() {
    let (scene, sandbox) = boot_with(old(), OlderGuest::Accept).await;
    let golden = chv_sandbox::golden::Golden::open(&scene.path("golden")).unwrap();
    assert_eq!(golden.manifest().guest.nonce, None);
    assert_eq!(golden.manifest().guest.build_id, None);
    sandbox.boot().await.unwrap();
    let reset = sandbox.reset().await.unwrap();
    assert!(reset.is_verified());
    let report = &reset.outcome().report;
    assert!(!report.reseeded && !report.clock_set, "the report says so");
    let asked = [CheckSource::GuestNonce, RENEWED[0], RENEWED[1]];
    assert_eq!(outcomes(report, asked), [CheckOutcome::NotApplicable; 3]);
    assert_echoed(echo(&sandbox, "old").await, "old");
    sandbox.shutdown().await;

    let (_scene, sandbox) = boot_with(old(), OlderGuest::Refuse).await;
    let error = sandbox.boot().await.unwrap_err();
    assert!(
        matches!(&error, Error::BootFailed(failure) if matches!(**failure, BootFailure::Unverified(_))),
        "{error}"
    );
    let report = &error.failed_reset().unwrap().outcome.report;
    assert_eq!(outcomes(report, asked), [CheckOutcome::Disagreed; 3]);
}

#[tokio::test]
async fn a_guest_older_than_one_extension_is_judged_by_the_others() {
    let knows_all_but = |missing: Extension| {
        intercepted(move |frame| {
            let Frame::Hello(_) = frame else {
                return None;
            };
            let mut hello = Hello::of_this_build();
            hello.extensions.retain(|name| name != missing.name());
            // The guest also lacks the nonce: a guest without one can't tell the nonce that the dispatcher keeps.
            hello
                .extensions
                .retain(|name| name != Extension::Nonce.name());
            Some(Frame::Hello(hello))
        })
    };
    let cases = [
        (
            Extension::Clock,
            [CheckOutcome::Agreed, CheckOutcome::NotApplicable],
        ),
        // The dispatcher behind the greeting still reseeds, and says so.
        (
            Extension::Reseed,
            [CheckOutcome::Agreed, CheckOutcome::Agreed],
        ),
    ];
    for (missing, expected) in cases {
        let (_scene, sandbox) = boot_with(knows_all_but(missing), OlderGuest::Accept).await;
        sandbox.boot().await.unwrap();
        let reset = sandbox.reset().await.unwrap();
        assert_eq!(outcomes(&reset.outcome().report, RENEWED), expected);
        sandbox.shutdown().await;
    }

    let refused = boot_with(knows_all_but(Extension::Clock), OlderGuest::Refuse).await;
    let error = refused.1.boot().await.unwrap_err();
    let report = &error.failed_reset().unwrap().outcome.report;
    assert_eq!(
        outcomes(report, RENEWED),
        [CheckOutcome::Agreed, CheckOutcome::Disagreed]
    );
}

#[tokio::test]
async fn a_guest_that_does_not_say_what_its_clock_shows_is_an_older_one() {
    let speechless = || renewing(|_, renewed| renewed.unix_nanos = None);
    for (older_guest, passes) in [(OlderGuest::Accept, true), (OlderGuest::Refuse, false)] {
        let (_scene, sandbox) = boot_with(speechless(), older_guest).await;
        assert_eq!(sandbox.boot().await.is_ok(), passes);
        sandbox.shutdown().await;
    }
}
