//! Measuring latency on recordings.

use std::sync::Arc;

use chv_sandbox::host_facts::Platform;
use chv_sandbox::latency::{
    Case, CaseReport, CaseState, MAX_RECORDED, Plan, Progress, Subject, measure,
};
use chv_sandbox::sandbox::{SandboxConfig, Strategy};
use tokio::sync::watch;

fn case(at_once: u32) -> Case {
    Case {
        golden: None,
        strategy: Strategy::InPlace,
        spares: 0,
        at_once,
    }
}

fn plan(cases: Vec<Case>, iterations: u64, diverge_at: Option<u64>) -> Plan {
    let mut plan = Plan::new(
        Subject::Recordings {
            patience: 10,
            diverge_at,
        },
        cases,
    );
    (plan.iterations, plan.warm_up) = (iterations, 1);
    plan
}

async fn measured(plan: &Plan) -> Vec<CaseReport> {
    let (_stop, stopped) = watch::channel(false);
    let report = measure(plan, &Arc::default(), stopped).await;
    assert_eq!(report.runs_on.platform, Platform::Replay);
    report.cases
}

fn counts(case: &CaseReport) -> Vec<(&str, u64)> {
    let steps = case.steps.iter();
    steps
        .map(|step| (step.name.as_str(), step.times.count))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_iteration_is_measured_and_no_warm_up() {
    let plan = plan(vec![case(1), case(3)], 7, None);
    for (case, boots) in measured(&plan).await.iter().zip([1, 3]) {
        assert_eq!(case.state, CaseState::Complete);
        assert_eq!(case.iterations, 7);
        let expected = [
            ("boot", boots),
            ("tool", 7),
            ("first_byte", 7),
            ("stream", 7),
            ("reset", 7),
        ];
        assert_eq!(counts(case), expected);
        assert_eq!(case.vmms["attached"], 7);
        assert_eq!(case.step("tool").unwrap().samples.len(), 7);
        assert!(case.reset_steps.iter().any(|step| step.name == "digest"));
        // The report names the steps that recordings don't have.
        let missing: Vec<&str> = case
            .not_measured
            .iter()
            .map(|it| it.step.as_str())
            .collect();
        assert_eq!(missing, ["acquire", "release"]);
        let parts: f64 = case.reset_steps.iter().map(|step| step.times.mean).sum();
        assert!(parts <= case.step("reset").unwrap().mean + 1.0);
        let (first, whole) = (
            case.step("first_byte").unwrap(),
            case.step("stream").unwrap(),
        );
        assert!(first.min <= whole.min && first.max <= whole.max);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_diverges_ends_its_case_with_its_error() {
    let cases = measured(&plan(vec![case(1), case(2)], 6, Some(3))).await;
    for case in &cases {
        let CaseState::Failed { failure } = &case.state else {
            panic!("{:?}", case.state);
        };
        assert_eq!(failure.step, "reset");
        assert_eq!(failure.code, "SANDBOX_RESET_DIVERGENCE");
        assert!(
            failure.error.contains("open descriptors"),
            "{}",
            failure.error
        );
    }
    // The iterations before the failed one count; the failed one counts nowhere.
    assert_eq!(cases[0].iterations, 2);
    assert_eq!(
        counts(&cases[0]),
        [
            ("boot", 1),
            ("tool", 2),
            ("first_byte", 2),
            ("stream", 2),
            ("reset", 2)
        ]
    );
    assert!(
        (2..6).contains(&cases[1].iterations),
        "{}",
        cases[1].iterations
    );
}

#[tokio::test]
async fn a_strategy_that_recordings_lack_is_skipped() {
    let fresh = Case {
        strategy: Strategy::Fresh,
        ..case(1)
    };
    let cases = measured(&plan(vec![fresh, case(1)], 1, None)).await;
    let CaseState::Skipped { failure } = &cases[0].state else {
        panic!("{:?}", cases[0].state);
    };
    assert_eq!(
        (failure.step.as_str(), failure.code.as_str()),
        ("open", "LATENCY_STRATEGY")
    );
    assert_eq!(cases[1].state, CaseState::Complete);
}

#[tokio::test]
async fn recordings_take_so_many_iterations_and_no_more() {
    let cases = measured(&plan(vec![case(3)], MAX_RECORDED - 2, None)).await;
    let CaseState::Skipped { failure } = &cases[0].state else {
        panic!("{:?}", cases[0].state);
    };
    assert_eq!(failure.code, "LATENCY_TOO_MANY");
}

#[tokio::test]
async fn a_golden_snapshot_that_is_not_there_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let config = SandboxConfig::golden(folder.path()).vmm(folder.path().join("vmm"));
    let there_is_none = Case {
        golden: Some(folder.path().join("golden")),
        ..case(1)
    };
    let subject = Subject::Vmms {
        config: Box::new(config),
        vmm: None,
    };
    let plan = Plan::new(subject, vec![there_is_none]);
    let (_stop, stopped) = watch::channel(false);
    let report = measure(&plan, &Arc::default(), stopped).await;
    assert_ne!(report.runs_on.platform, Platform::Replay);
    assert_eq!(report.vmm.release, None);
    assert!(report.vmm.unknown_because.is_some());
    let case = &report.cases[0];
    assert!(matches!(case.state, CaseState::Skipped { .. }), "{case:?}");
    assert!(!report.is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn measurements_before_a_stop_are_reported() {
    // The greatest number of iterations that recordings allow. The first case is stopped long before.
    let plan = plan(vec![case(2), case(1)], 5_000, None);
    let progress = Arc::<Progress>::default();
    let (stop, stopped) = watch::channel(false);
    let watched = Arc::clone(&progress);
    let stopping = tokio::spawn(async move {
        while watched.iterations() < 6 {
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
        stop
    });
    let report = measure(&plan, &progress, stopped).await;
    stopping.await.unwrap();
    assert!(report.interrupted && !report.is_complete());
    let [first, second] = &report.cases[..] else {
        panic!("{:?}", report.cases);
    };
    assert_eq!(
        (&first.state, &second.state),
        (&CaseState::Interrupted, &CaseState::Interrupted)
    );
    // The six iterations include the two of the warm-up.
    assert!(
        (4..5_000).contains(&first.iterations),
        "{}",
        first.iterations
    );
    assert_eq!(first.step("reset").unwrap().count, first.iterations);
    assert_eq!((second.iterations, second.steps.len()), (0, 0));
}
