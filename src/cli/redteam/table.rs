//! The report as a table for the terminal.

use anstyle::{AnsiColor, Style};
use chv_sandbox::redteam::{ProbeReport, RedteamReport, Verdict};
use chv_sandbox::sanitize;

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default();

/// The most characters of a text that are printed; no real line is that long.
const LONGEST: usize = 4096;

/// The report as lines. The last counts the probes that passed.
pub(super) fn lines(report: &RedteamReport) -> Vec<String> {
    let mut subject = vec![report.sandbox.as_deref().unwrap_or("no sandbox")];
    subject.extend(report.golden.as_deref());
    subject.extend(report.release.as_deref());
    subject.extend(report.strategy.as_deref());
    let on = &report.runs_on;
    let mut lines = vec![
        format!(
            "{BOLD}chv-sandbox redteam{BOLD:#}: {}",
            safe(&subject.join(", "))
        ),
        format!("on {}: {}", on.platform.name(), safe(&on.reason)),
    ];
    let mut family = None;
    for probe in &report.probes {
        if family.replace(probe.family) != Some(probe.family) {
            lines.push(String::new());
            lines.push(format!("{BOLD}{}{BOLD:#}", probe.family.name()));
        }
        push_probe(probe, &mut lines);
    }
    lines.push(String::new());
    let resets = &report.resets;
    lines.push(format!(
        "{} dispatches on {} sandboxes; resets: {} verified, {} not verified, {} failed",
        report.dispatches, report.sandboxes, resets.verified, resets.unverified, resets.failed
    ));
    let count = |is: fn(&Verdict) -> bool| {
        let verdicts = report.probes.iter().map(|probe| &probe.verdict);
        verdicts.filter(|verdict| is(verdict)).count()
    };
    let (passed, failed) = (count(Verdict::is_passed), count(Verdict::is_failed));
    let skipped = report.probes.len() - passed - failed;
    let style = match (failed, skipped) {
        (0, 0) => GOOD,
        (0, _) => WARNING,
        _ => BAD,
    };
    let interrupted = if report.interrupted {
        ", interrupted"
    } else {
        ""
    };
    lines.push(format!(
        "{style}{passed} passed, {failed} failed, {skipped} skipped{style:#}{interrupted}"
    ));
    lines
}

fn push_probe(probe: &ProbeReport, lines: &mut Vec<String>) {
    let (style, told): (_, Vec<&str>) = match &probe.verdict {
        Verdict::Passed { evidence } => (GOOD, evidence.iter().map(String::as_str).collect()),
        Verdict::Failed { evidence } => (BAD, evidence.iter().map(String::as_str).collect()),
        Verdict::Skipped { reason } => (WARNING, vec![reason]),
    };
    let name = safe(&probe.name);
    let verdict = probe.verdict.name();
    let mut told = told.into_iter().map(safe);
    let first = told.next().unwrap_or_default();
    lines.push(format!("  {name:<22}{style}{verdict:<8}{style:#} {first}"));
    lines.extend(told.map(|more| format!("{:33}{more}", "")));
}

fn safe(text: &str) -> String {
    sanitize::line(text, LONGEST)
}
