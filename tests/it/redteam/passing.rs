//! Each probe passes where nothing leaks, and is skipped where it can't be tried.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chv_sandbox::redteam::{
    Family, Moment, Plan, Progress, RedteamReport, Verdict, attack, probes,
};
use chv_sandbox::sandbox::{Sandbox, StubSandbox};
use tokio::sync::watch;

use super::guest::{Guest, Leak};
use super::sandbox::{Fault, PlayedSandbox, Telling};
use super::{DISPATCHES, all, plan, plan_of, report_on};

#[tokio::test]
async fn a_guest_that_leaks_nothing_passes_every_probe() {
    let report = all(plan(Guest::honest())).await;
    for probe in &report.probes {
        assert!(probe.verdict.is_passed(), "{probe:?}");
    }
    assert_eq!(report.probes.len(), probes().count());
    assert!(report.is_passed() && !report.is_breached() && !report.interrupted);
    assert_eq!((report.sandboxes, report.resets.failed), (1, 0));
    assert!(report.resets.verified >= DISPATCHES, "{:?}", report.resets);
    let file = report.probe("marker_file").unwrap();
    assert_eq!(file.dispatches, DISPATCHES);
    assert_eq!(report.probe("marker_random").unwrap().dispatches, 0);
    let Verdict::Passed { evidence } = &file.verdict else {
        panic!("{file:?}");
    };
    assert!(evidence[0].contains("12 dispatches"), "{evidence:?}");
}

#[tokio::test]
async fn a_dispatch_that_is_lost_is_made_again() {
    let lossy = || PlayedSandbox::new(Guest::honest()).with(Fault::Loses(&[3]));
    let report = all(plan_of(lossy).only(&["marker_file"]).unwrap()).await;
    let file = report.probe("marker_file").unwrap();
    let Verdict::Passed { evidence } = &file.verdict else {
        panic!("{file:?}");
    };
    assert_eq!(file.dispatches, DISPATCHES + 1);
    assert!(evidence[0].contains("12 dispatches"), "{evidence:?}");
    assert!(evidence[0].contains("1 more were lost"), "{evidence:?}");
}

#[tokio::test]
async fn many_lost_dispatches_are_no_pass() {
    let lossy = || PlayedSandbox::new(Guest::honest()).with(Fault::Loses(&[3, 5]));
    let report = all(plan_of(lossy).only(&["marker_file"]).unwrap()).await;
    let Verdict::Skipped { reason } = &report.probe("marker_file").unwrap().verdict else {
        panic!("{report:?}");
    };
    assert!(reason.contains("after 3 of 12 dispatches"), "{reason}");
}

#[tokio::test]
async fn a_thousand_dispatches_are_made_unless_set() {
    let plan = plan(Guest::honest());
    let defaults = Plan::new(async || Err("none".into()));
    assert_eq!((defaults.dispatches, plan.dispatches), (1000, DISPATCHES));
}

#[tokio::test]
async fn a_stub_without_tools_has_every_probe_skipped() {
    let report = all(Plan::new(async || {
        let stub: Arc<dyn Sandbox> = Arc::new(StubSandbox::default());
        Ok(stub)
    }))
    .await;
    for probe in &report.probes {
        assert!(
            matches!(probe.verdict, Verdict::Skipped { .. }),
            "{probe:?}"
        );
    }
    assert!(!report.is_passed() && !report.is_breached());
    assert_eq!(report.sandbox.as_deref(), Some("stub"));
}

fn all_are_skipped(report: &RedteamReport, reason: &str) {
    for probe in &report.probes {
        match &probe.verdict {
            Verdict::Skipped { reason: found } => {
                assert!(found.contains(reason), "{probe:?}");
            }
            _ => panic!("{probe:?}"),
        }
    }
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_made_is_tried_once() {
    let tries = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&tries);
    let plan = Plan::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Err("there is no KVM".into()) }
    });
    let plan = plan.without(&["substrate", "resets"]).unwrap();
    let report = all(plan).await;
    all_are_skipped(&report, "there is no KVM");
    assert_eq!(tries.load(Ordering::Relaxed), 1);
    assert_eq!((report.sandbox, report.dispatches), (None, 0));
}

#[tokio::test]
async fn a_battery_that_is_stopped_says_so() {
    let (stop, stopped) = watch::channel(false);
    stop.send_replace(true);
    let plan = Arc::new(plan(Guest::honest()));
    let report = attack(&plan, &Arc::new(Progress::default()), stopped).await;
    all_are_skipped(&report, "interrupted");
    assert!(report.interrupted && !report.is_passed());
}

#[tokio::test]
async fn one_dispatch_finds_no_marker() {
    let mut plan = plan(Guest::honest()).only(&["markers"]).unwrap();
    plan.dispatches = 1;
    let report = all(plan).await;
    assert_eq!(report.probes.len(), 7);
    all_are_skipped(&report, "fewer than two");
}

#[tokio::test]
async fn probes_that_the_image_cannot_try_are_skipped() {
    let report = report_on(
        Guest::with(Leak::Cannot("network_connect")),
        "network_connect",
    )
    .await;
    all_are_skipped(&report, "the image has no nc");
}

#[tokio::test]
async fn a_script_that_does_not_end_proves_nothing() {
    for probe in ["host_files", "network_dns", "channel_vsock"] {
        let report = report_on(Guest::with(Leak::Unfinished(probe)), probe).await;
        all_are_skipped(&report, "did not come to its end");
    }
    let report = report_on(Guest::with(Leak::Unfinished("markers")), "markers").await;
    all_are_skipped(&report, "after 1 of 12 dispatches");
}

#[tokio::test]
async fn another_sandbox_is_made_after_a_reset_that_diverged() {
    let made = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&made);
    let plan = plan_of(move || {
        let sandbox = PlayedSandbox::new(Guest::honest());
        match counted.fetch_add(1, Ordering::Relaxed) {
            0 => sandbox.with(Fault::DivergesAt(1)),
            _ => sandbox,
        }
    });
    let plan = plan
        .only(&["host_files", "host_devices", "resets"])
        .unwrap();
    let report = all(plan).await;
    let names: Vec<&str> = report
        .probes
        .iter()
        .map(|probe| probe.verdict.name())
        .collect();
    assert_eq!(names, ["skipped", "passed", "failed"]);
    assert_eq!((report.sandboxes, report.resets.failed), (2, 1));
    assert!(report.failures[0].contains("SANDBOX_RESET_DIVERGENCE"));
}

#[tokio::test]
async fn resets_that_are_not_verified_do_not_pass() {
    let plan = plan_of(|| PlayedSandbox::new(Guest::honest()).with(Fault::Unverified));
    let report = all(plan.only(&["host_files", "every_reset"]).unwrap()).await;
    assert!(report.probe("host_files").unwrap().verdict.is_passed());
    let verdict = &report.probe("every_reset").unwrap().verdict;
    assert!(
        matches!(verdict, Verdict::Skipped { reason } if reason.contains("not verified")),
        "{verdict:?}"
    );
    assert!(!report.is_passed());
}

#[tokio::test]
async fn a_lie_that_cannot_be_told_is_skipped() {
    let telling = |fault, told| Telling {
        fault,
        moment: Moment::BeforeReset,
        told,
    };
    for (substrate, reason) in [
        (telling(None, Err("the file is gone")), "the file is gone"),
        (
            telling(Some(Fault::DivergesAt(1)), Err("no room")),
            "no room",
        ),
    ] {
        let plan = plan(Guest::honest()).with_substrate(substrate);
        let report = all(plan.only(&["substrate"]).unwrap()).await;
        all_are_skipped(&report, reason);
    }
}

#[test]
fn probes_are_chosen_by_name_and_family() {
    let names = |plan: Plan| {
        let probes = plan.probes().iter();
        probes.map(|probe| probe.name).collect::<Vec<_>>()
    };
    let plan = || plan(Guest::honest());
    let only = plan().only(&["every_reset", "network"]).unwrap();
    assert_eq!(
        names(only),
        [
            "network_interfaces",
            "network_connect",
            "network_dns",
            "every_reset"
        ]
    );
    let without = plan().without(&["substrate"]).unwrap();
    assert_eq!(names(without).len(), probes().count() - 9);
    let error = plan().only(&["network", "nonsense"]).unwrap_err();
    assert_eq!(error.name, "nonsense");
    assert!(plan().without(&["nonsense"]).is_err());
}

#[tokio::test]
async fn every_script_is_one_that_a_shell_can_read() {
    let guest = Guest::honest();
    let report = all(plan(guest.clone())).await;
    let scripts = guest.scripts();
    let families: BTreeSet<Family> = report.probes.iter().map(|probe| probe.family).collect();
    assert!(
        scripts.len() > 20 && families.len() == 9,
        "{:?}",
        scripts.keys()
    );
    for (name, script) in scripts {
        let mut shell = Command::new("sh")
            .arg("-n")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        assert!(shell.wait().unwrap().success(), "{name}: {script}");
    }
}
