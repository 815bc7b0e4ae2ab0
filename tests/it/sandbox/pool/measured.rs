//! Measuring the latency of pools.

use std::sync::Arc;

use chv_sandbox::latency::{Case, CaseReport, CaseState, LatencyReport, Plan, Subject, measure};
use chv_sandbox::sandbox::Strategy;
use tokio::sync::watch;

use super::{PATIENCE, Place};

impl Place {
    fn plan(&self, cases: &[(Strategy, u32)], at_once: u32) -> Plan {
        let cases = cases.iter().map(|&(strategy, spares)| Case {
            golden: Some(self.scene.path("golden")),
            strategy,
            spares,
            at_once,
        });
        let subject = Subject::Vmms {
            config: Box::new(self.scene.config()),
            vmm: Some(Box::new(self.stage.config())),
        };
        let mut plan = Plan::new(subject, cases.collect());
        (plan.iterations, plan.warm_up, plan.acquire) = (5, 1, PATIENCE);
        plan
    }

    async fn measure(&self, plan: &Plan) -> LatencyReport {
        let (_stop, stopped) = watch::channel(false);
        let report = measure(plan, &Arc::default(), stopped).await;
        self.stage.assert_empty();
        report
    }
}

fn count(case: &CaseReport, step: &str) -> u64 {
    case.step(step).map_or(0, |times| times.count)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_each_strategy_is_measured() {
    let place = Place::new().await;
    let cases = [
        (Strategy::InPlace, 0),
        (Strategy::Fresh, 0),
        (Strategy::Fresh, 1),
    ];
    let report = place.measure(&place.plan(&cases, 2)).await;
    assert!(report.is_complete(), "{:?}", report.cases);
    assert_eq!(report.vmm.release.as_deref(), Some("v53.0"));
    for case in &report.cases {
        assert_eq!(count(case, "boot"), 2, "{}", case.name);
        for step in [
            "acquire",
            "tool",
            "first_byte",
            "stream",
            "reset",
            "release",
        ] {
            assert_eq!(count(case, step), 5, "{}: {step}", case.name);
        }
        assert_eq!(case.vmms.values().sum::<u64>(), 5);
        assert!(case.not_measured.is_empty());
        assert!(case.memory_mib.is_some() && case.memory.is_some());
        assert!(!case.layers.is_empty());
        // A release consists of the reset and the work around it.
        let (reset, release) = (case.step("reset").unwrap(), case.step("release").unwrap());
        assert!(reset.min <= release.min && reset.mean <= release.mean);
    }
    let vmms =
        |at: usize| -> Vec<&str> { report.cases[at].vmms.keys().map(String::as_str).collect() };
    assert_eq!(vmms(0), ["reused"]);
    assert_eq!(vmms(1), ["new"]);
    // Resets that follow each other closely may come before a spare is ready.
    assert!(vmms(2).iter().all(|vmm| ["new", "spare"].contains(vmm)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_diverges_ends_its_case_and_not_the_next() {
    let place = Place::new().await;
    let open_files = place.scene.guest.open_files();
    place.scene.guest.set_open_files(open_files + 1);
    let report = place.measure(&place.plan(&[(Strategy::Fresh, 0)], 1)).await;
    let CaseState::Failed { failure } = &report.cases[0].state else {
        panic!("{:?}", report.cases[0].state);
    };
    assert_eq!(failure.step, "boot");
    assert!(
        failure.error.contains("open descriptors"),
        "{}",
        failure.error
    );
    assert_eq!(report.cases[0].iterations, 0);

    place.scene.guest.set_open_files(open_files);
    let report = place.measure(&place.plan(&[(Strategy::Fresh, 0)], 1)).await;
    assert!(report.is_complete(), "{:?}", report.cases);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_golden_snapshot_that_was_tampered_with_is_skipped() {
    let place = Place::new().await;
    std::fs::write(place.scene.path("golden/overlay.img"), "other bytes").unwrap();
    let report = place.measure(&place.plan(&[(Strategy::Fresh, 0)], 1)).await;
    let CaseState::Skipped { failure } = &report.cases[0].state else {
        panic!("{:?}", report.cases[0].state);
    };
    assert_eq!(failure.code, "LATENCY_GOLDEN", "{}", failure.error);
}
