use serde_json::json;

use super::*;
use crate::vsock::OutputBytes;

/// Every outcome with its exit code and its text.
fn outcomes() -> Vec<(ToolOutcome, i32, &'static str)> {
    let reason = || "so".to_owned();
    vec![
        (ToolOutcome::Exited { code: 0 }, 0, "exited with code 0"),
        (
            ToolOutcome::Exited { code: 137 },
            137,
            "exited with code 137",
        ),
        (
            ToolOutcome::Signalled { signal: 15 },
            143,
            "killed by signal 15",
        ),
        (ToolOutcome::DeadlineExceeded, 137, "killed at its deadline"),
        (ToolOutcome::Cancelled, 130, "cancelled"),
        (ToolOutcome::NoSuchTool, 127, "the guest has no such tool"),
        (
            ToolOutcome::Refused { reason: reason() },
            254,
            "refused by the guest: so",
        ),
        (
            ToolOutcome::GuestFailed { reason: reason() },
            254,
            "the guest failed: so",
        ),
        (
            ToolOutcome::Unspecified { exit_code: -7 },
            -7,
            "ended with exit code -7, and the guest does not say how",
        ),
    ]
}

#[test]
fn every_outcome_has_its_exit_code_on_the_wire() {
    for (outcome, exit_code, said) in outcomes() {
        assert_eq!(outcome.to_string(), said);
        assert_eq!(outcome.is_success(), exit_code == 0);
        let execution = ToolExecution::new(outcome, "out", "err");
        assert_eq!(
            serde_json::to_string(&execution).unwrap(),
            format!(r#"{{"exit_code":{exit_code},"stdout":"out","stderr":"err"}}"#)
        );
    }
    assert!(ToolOutcome::Unspecified { exit_code: 0 }.is_success());
}

#[test]
fn the_wire_has_the_streams_as_text_and_the_evidence_hash() {
    let mut execution = ToolExecution::new(
        ToolOutcome::Exited { code: 1 },
        b"a\xff".to_vec(),
        ToolOutput::cut("e", 7),
    );
    execution.took = Duration::from_secs(3);
    execution.evidence_hash = Some("sha256:00".to_owned());
    let text = serde_json::to_string(&execution).unwrap();
    assert_eq!(
        text,
        r#"{"exit_code":1,"stdout":"a�","stderr":"e","evidence_hash":"sha256:00"}"#
    );

    let back: ToolExecution = serde_json::from_str(&text).unwrap();
    assert_eq!(back.outcome, ToolOutcome::Unspecified { exit_code: 1 });
    assert_eq!(back.stdout.bytes(), "a\u{fffd}".as_bytes());
    assert_eq!((back.stderr.total(), back.stderr.is_cut()), (None, None));
    assert_eq!(back.took, Duration::ZERO);
    assert_eq!(serde_json::to_string(&back).unwrap(), text);

    for wrong in [
        json!({"exit_code": 0, "stdout": ""}),
        json!({"exit_code": 0, "stdout": "", "stderr": "", "outcome": "exited"}),
    ] {
        assert!(serde_json::from_value::<ToolExecution>(wrong).is_err());
    }
}

#[test]
fn an_output_knows_what_was_dropped() {
    let check = |output: ToolOutput, total, is_cut| {
        assert_eq!((output.total(), output.is_cut()), (total, is_cut));
        assert_eq!(output.bytes(), b"ab");
        assert_eq!(output.into_bytes(), b"ab");
    };
    check(ToolOutput::whole("ab"), Some(2), Some(false));
    check(ToolOutput::cut("ab", 1), Some(3), Some(true));
    check(ToolOutput::cut("ab", u64::MAX), Some(u64::MAX), Some(true));
    check(ToolOutput::of_unknown_total("ab"), None, None);
}

#[test]
fn debug_shows_lengths_and_no_content() {
    let zs = || "zz".to_owned();
    for (outcome, ..) in outcomes() {
        let outcome = match outcome {
            ToolOutcome::Refused { .. } => ToolOutcome::Refused { reason: zs() },
            ToolOutcome::GuestFailed { .. } => ToolOutcome::GuestFailed { reason: zs() },
            other => other,
        };
        let execution = ToolExecution::new(outcome, "zzz", ToolOutput::cut("zzzz", 6));
        let shown = format!("{execution:?}");
        assert!(!shown.contains('z'), "{shown}");
        assert!(shown.contains("ToolOutput(3 bytes of 3)"), "{shown}");
        assert!(shown.contains("ToolOutput(4 bytes of 10)"), "{shown}");
    }
    let refused = ToolOutcome::Refused { reason: zs() };
    assert_eq!(format!("{refused:?}"), "Refused { reason: 2 bytes }");
}

#[test]
fn the_outcome_is_the_one_that_the_guest_says() {
    let took = Duration::from_millis(5);
    let result = |exit_code, outcome: Option<ToolOutcomeKind>| ToolResult {
        command_id: "c1".to_owned(),
        exit_code,
        stdout: "\u{fffd}".to_owned(),
        stderr: "why\u{1b}".to_owned(),
        evidence_hash: None,
        details: outcome.map(|outcome| ResultDetails {
            outcome,
            stdout_total: u64::MAX,
            stdout_kept: 1,
            stderr_total: 4,
            stderr_kept: 4,
        }),
    };
    let told = |exit_code, outcome| {
        let output = OutputBytes {
            stdout: b"\xff".to_vec(),
            stderr: b"why\x1b".to_vec(),
        };
        let (result, output) = (result(exit_code, Some(outcome)), Some(output));
        ToolExecution::answered(ToolAnswer { result, output }, took)
    };
    let reason = || "why\\u{1b}".to_owned();
    for (exit_code, kind, outcome) in [
        (7, ToolOutcomeKind::Exited, ToolOutcome::Exited { code: 7 }),
        (
            137,
            ToolOutcomeKind::Exited,
            ToolOutcome::Exited { code: 137 },
        ),
        (
            137,
            ToolOutcomeKind::Signalled,
            ToolOutcome::Signalled { signal: 9 },
        ),
        (
            137,
            ToolOutcomeKind::DeadlineExceeded,
            ToolOutcome::DeadlineExceeded,
        ),
        (127, ToolOutcomeKind::NoSuchTool, ToolOutcome::NoSuchTool),
        (
            254,
            ToolOutcomeKind::Refused,
            ToolOutcome::Refused { reason: reason() },
        ),
        (
            254,
            ToolOutcomeKind::GuestFailed,
            ToolOutcome::GuestFailed { reason: reason() },
        ),
    ] {
        let execution = told(exit_code, kind);
        assert_eq!(execution.outcome, outcome);
        assert_eq!(execution.exit_code(), exit_code);
        assert_eq!(
            execution.stdout,
            ToolOutput::of(b"\xff".to_vec(), Some(u64::MAX))
        );
        assert_eq!(execution.stderr, ToolOutput::whole("why\x1b"));
        assert_eq!(execution.took, took);
    }

    for exit_code in [0, 127, 137, 143, 254] {
        let result = result(exit_code, None);
        let old = ToolAnswer {
            result,
            output: None,
        };
        let execution = ToolExecution::answered(old, took);
        assert_eq!(execution.outcome, ToolOutcome::Unspecified { exit_code });
        assert_eq!(execution.stdout, ToolOutput::of_unknown_total("\u{fffd}"));
    }
}
