//! The report as JSON.

use chv_sandbox::redteam::{RedteamReport, ReportError};
use serde_json::{Value, json};

use super::guest::{Guest, Leak};
use super::{all, plan};

/// A report with every kind of verdict.
async fn example() -> RedteamReport {
    let plan = plan(Guest::with(Leak::Breach("host_files")));
    let mut report = all(plan.only(&["host", "resets"]).unwrap()).await;
    let skipped = json!({"verdict": "skipped", "reason": "no nc"});
    report.probes[2].verdict = serde_json::from_value(skipped).unwrap();
    report
}

#[tokio::test]
async fn a_written_report_is_read_back() {
    let report = example().await;
    let json = serde_json::to_vec_pretty(&report).unwrap();
    assert_eq!(RedteamReport::from_json(&json).unwrap(), report);
    let value: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(value["schema_version"], 1);
    assert_eq!(value["sandbox"], "stub");
    assert_eq!(value["resets"]["unverified"], 0);
    assert_eq!(value["probes"][0]["name"], "host_files");
    assert_eq!(value["probes"][0]["family"], "host");
    assert_eq!(value["probes"][0]["verdict"], "failed");
    assert_eq!(value["probes"][0]["evidence"][0], "something: it was seen");
    assert_eq!(value["probes"][1]["verdict"], "passed");
    assert_eq!(value["probes"][2]["reason"], "no nc");
}

#[tokio::test]
async fn a_further_field_is_read_over() {
    let report = example().await;
    let mut value = serde_json::to_value(&report).unwrap();
    value["more"] = json!(1);
    value["probes"][0]["more"] = json!([]);
    let read = RedteamReport::from_json(value.to_string().as_bytes()).unwrap();
    assert_eq!(read, report);
}

#[tokio::test]
async fn another_schema_is_named_and_nothing_else_is_a_report() {
    let written = serde_json::to_value(example().await).unwrap();
    let mut value = written.clone();
    value["schema_version"] = json!(2);
    let error = RedteamReport::from_json(value.to_string().as_bytes()).unwrap_err();
    assert!(
        matches!(error, ReportError::Version { found: 2, .. }),
        "{error:?}"
    );
    let mut lies = vec![String::new(), "[]".to_owned(), "{}".to_owned()];
    for (pointer, lie) in [
        ("/probes", json!({})),
        ("/probes/0/verdict", json!("fine")),
        ("/probes/0/evidence", Value::Null),
        ("/probes/0/family", json!("friends")),
        ("/dispatches", json!(-1)),
        ("/resets/failed", json!("none")),
        ("/schema_version", json!("1")),
    ] {
        let mut value = written.clone();
        *value.pointer_mut(pointer).unwrap() = lie;
        lies.push(value.to_string());
    }
    for lie in lies {
        let error = RedteamReport::from_json(lie.as_bytes()).unwrap_err();
        assert!(
            matches!(error, ReportError::Malformed { .. }),
            "{lie}: {error:?}"
        );
    }
}

#[tokio::test]
async fn only_a_report_whose_every_probe_passed_is_passed() {
    let mut report = example().await;
    assert!(report.is_breached() && !report.is_passed());
    report.probes.retain(|probe| !probe.verdict.is_failed());
    assert!(
        !report.is_breached() && !report.is_passed(),
        "one is skipped"
    );
    report.probes.retain(|probe| probe.verdict.is_passed());
    assert!(report.is_passed());
    report.interrupted = true;
    assert!(!report.is_passed());
    report.interrupted = false;
    report.probes.clear();
    assert!(!report.is_passed(), "nothing was tried");
}
