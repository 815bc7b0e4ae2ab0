//! The report as JSON.

use chv_sandbox::latency::{CaseState, LatencyReport, ReportError};
use serde_json::{Value, json};

use super::{EXAMPLE, example};

#[test]
fn the_schema_is_the_pinned_one() {
    let report = example();
    let written = serde_json::to_string_pretty(&report).unwrap();
    let expected: Value = serde_json::from_str(EXAMPLE).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), expected);
    assert_eq!(
        LatencyReport::from_json(written.as_bytes()).unwrap(),
        report
    );
}

#[test]
fn only_a_report_whose_every_case_came_to_its_end_is_complete() {
    let mut report = example();
    assert!(!report.is_complete());
    report
        .cases
        .retain(|case| case.state == CaseState::Complete);
    assert!(!report.is_complete(), "it was interrupted");
    report.interrupted = false;
    assert!(report.is_complete());
    for case in example().cases.into_iter().skip(1) {
        let mut report = report.clone();
        report.cases.push(case);
        assert!(!report.is_complete());
    }
}

#[test]
fn a_further_field_is_read_over() {
    let mut value: Value = serde_json::from_str(EXAMPLE).unwrap();
    value["more"] = json!(1);
    value["cases"][0]["more"] = json!([]);
    let read = LatencyReport::from_json(value.to_string().as_bytes()).unwrap();
    assert_eq!(read, example());
}

#[test]
fn another_schema_is_named_and_nothing_else_is_a_report() {
    let mut value: Value = serde_json::from_str(EXAMPLE).unwrap();
    value["schema_version"] = json!(2);
    let error = LatencyReport::from_json(value.to_string().as_bytes()).unwrap_err();
    assert!(
        matches!(error, ReportError::Version { found: 2, .. }),
        "{error:?}"
    );
    let mut lies = vec![String::new(), "[]".to_owned(), "{}".to_owned()];
    for (pointer, lie) in [
        ("/cases", json!({})),
        ("/cases/0/state", json!("fine")),
        ("/cases/1/failure", Value::Null),
        ("/cases/0/iterations", json!(-1)),
        ("/cases/0/steps/0/mean", json!("quick")),
        ("/cases/0/steps/0/histogram/0/count", json!(1e30)),
        ("/runs_on/platform", json!("a hardware")),
        ("/began_at", json!("yesterday")),
        ("/schema_version", json!("1")),
    ] {
        let mut value: Value = serde_json::from_str(EXAMPLE).unwrap();
        *value.pointer_mut(pointer).unwrap() = lie;
        lies.push(value.to_string());
    }
    for lie in lies {
        let error = LatencyReport::from_json(lie.as_bytes()).unwrap_err();
        assert!(matches!(error, ReportError::Malformed { .. }), "{error:?}");
    }
}
