//! [`Program`]: the demo's output, which is one line for each step, or one JSON object at the end.

use std::path::Path;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use chv_sandbox::golden::Golden;
use chv_sandbox::sandbox::{CheckOutcome, FailedReset, ResetCheck, ResetOutcome, ToolExecution};
use serde_json::{Map, Value, json};

use super::directory::Place;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// How many characters of a digest are shown.
const DIGEST_SHOWN: usize = "sha256:".len() + 12;

/// Prints or collects the results of the demo's steps.
pub(super) struct Program {
    json: bool,
    results: Map<String, Value>,
    steps: Vec<Value>,
}

impl Program {
    pub(super) fn new(json: bool) -> Self {
        Program {
            json,
            results: Map::new(),
            steps: Vec::new(),
        }
    }

    /// Prints the heading, and the notes, which name everything that is simulated.
    pub(super) fn begin(&mut self, stage: &str, notes: &[&str]) {
        self.result("stage", json!(stage));
        self.result("notes", json!(notes));
        self.line(format_args!("{BOLD}chv-sandbox demo{BOLD:#} on {stage}"));
        for note in notes {
            self.line(format_args!("  {DIM}- {note}{DIM:#}"));
        }
        self.line(format_args!(""));
    }

    pub(super) fn minted(&mut self, since: Instant, golden: &Golden) {
        let manifest = golden.manifest();
        self.result("baselines", json!(manifest.baselines));
        let overlay = short(&manifest.baselines.fs_hash.to_string());
        let count = manifest.baselines.open_fd_count;
        let release = &manifest.release;
        let what = format!("VMM {release}; overlay {overlay}, {count} descriptors");
        self.step("golden snapshot", since, &what);
    }

    pub(super) fn booted(&mut self, since: Instant) {
        self.step("boot", since, "restored and verified");
    }

    pub(super) fn tool_ran(&mut self, since: Instant, execution: &ToolExecution) {
        self.result("tool", json!(execution));
        let what = format!(
            "{}: {:?}",
            execution.outcome,
            execution.stdout.text().trim_end()
        );
        self.step("tool: echo", since, &what);
    }

    pub(super) fn reset_verified(&mut self, since: Instant, outcome: &ResetOutcome) {
        self.result("clean_reset", reset(outcome));
        self.step("reset", since, &format!("{GOOD}verified{GOOD:#}"));
        self.checks(outcome);
    }

    pub(super) fn tampered(&mut self, disk: &Path, offset: u64) {
        // Only the name is reported, because the demo's directory may be removed by the time this is read.
        let name = disk.file_name().unwrap_or_default().to_string_lossy();
        self.result("tampered", json!({ "disk": name, "offset": offset }));
        let what = format!("byte {offset} of {name}, the read-only disk");
        self.line(format_args!(
            "  {BOLD}{:<16}{BOLD:#} {:>10}  {what}",
            "tamper", ""
        ));
    }

    pub(super) fn reset_halted(&mut self, since: Instant, failed: &FailedReset, place: &Place) {
        // Evidence in a temporary directory is removed at the end, so its path is not reported.
        let evidence = failed.evidence.as_ref().filter(|_| place.is_named());
        let mut result = reset(&failed.outcome);
        result["evidence"] = json!(evidence);
        self.result("tampered_reset", result);
        self.step(
            "reset",
            since,
            &format!("{BAD}halted{BAD:#}: a source disagrees"),
        );
        self.checks(&failed.outcome);
        let evidence = match evidence {
            Some(evidence) => format!("evidence kept in {}", evidence.display()),
            None => "evidence kept until the demo ends; --directory DIR keeps it".to_owned(),
        };
        self.line(format_args!("{:>31}{DIM}{evidence}{DIM:#}", ""));
    }

    pub(super) fn shut_down(&mut self, since: Instant) {
        self.step("shutdown", since, "nothing left running");
    }

    /// Prints the verdict, or the JSON object.
    pub(super) fn end(mut self, passed: bool) {
        if passed {
            self.line(format_args!(
                "\n{GOOD}passed{GOOD:#}: the clean reset was verified, the tampered one halted"
            ));
        }
        if self.json {
            self.results.insert("passed".to_owned(), json!(passed));
            self.results
                .insert("steps".to_owned(), Value::Array(self.steps));
            println!("{:#}", Value::Object(self.results));
        }
    }

    fn step(&mut self, name: &str, since: Instant, what: &str) {
        let elapsed = since.elapsed();
        self.steps
            .push(json!({ "name": name, "micros": elapsed.as_micros() as u64 }));
        let time = millis(elapsed);
        self.line(format_args!(
            "  {BOLD}{name:<16}{BOLD:#} {time:>10}  {what}"
        ));
    }

    /// Prints each check on one line: its source, its outcome and what was found.
    fn checks(&self, outcome: &ResetOutcome) {
        for check in &outcome.report.checks {
            let (style, word) = match check.outcome {
                CheckOutcome::Agreed => (GOOD, "agrees"),
                CheckOutcome::VouchedFor => (GOOD, "vouched for"),
                CheckOutcome::Disagreed => (BAD, "DISAGREES"),
                CheckOutcome::Silent => (BAD, "silent"),
                CheckOutcome::NotApplicable => (DIM, "does not apply"),
            };
            let name = check.source;
            let found = said(check);
            self.line(format_args!(
                "{:>31}{name:<20} {style}{word:<14}{style:#} {found}",
                ""
            ));
        }
        let steps = outcome.report.steps.iter();
        let steps: Vec<_> = steps.map(|step| step.to_string()).collect();
        self.line(format_args!("{:>31}{DIM}{}{DIM:#}", "", steps.join(", ")));
    }

    fn result(&mut self, name: &str, value: Value) {
        self.results.insert(name.to_owned(), value);
    }

    fn line(&self, line: std::fmt::Arguments<'_>) {
        if !self.json {
            println!("{line}");
        }
    }
}

fn reset(outcome: &ResetOutcome) -> Value {
    json!({ "state": outcome.state, "report": outcome.report })
}

fn said(check: &ResetCheck) -> String {
    match check.outcome {
        CheckOutcome::Disagreed => format!(
            "{} instead of {}",
            short(&check.found),
            short(&check.expected)
        ),
        _ => short(&check.found),
    }
}

/// Shortens the digest in a text.
fn short(text: &str) -> String {
    match text.find("sha256:") {
        Some(at) if text.len() > at + DIGEST_SHOWN => format!("{}…", &text[..at + DIGEST_SHOWN]),
        _ => text.to_owned(),
    }
}

fn millis(elapsed: Duration) -> String {
    format!("{:.1} ms", elapsed.as_secs_f64() * 1e3)
}
